"""convert(): read -> check -> deduplicate -> split -> export, one row in memory at a time.

Promises: rows in = rows out + quarantined + duplicates + left out by request; equal input and configuration
give equal bytes; nothing in the output folder changes before everything is written (see `dfkdata.output`).
An exact duplicate (same turns, same tools, same picture bytes) is written to duplicates.jsonl and is no
reject. Where two copies fall on two sides of the split, the one in training goes, so that nothing is tested
that was taught. The turns are encoded once: the same bytes are hashed, normalised and written."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from dfkdata import checks, output, plugins, reader, schemas, split, tally
from dfkdata.config import bind
from dfkdata.dedup import Seen
from dfkdata.errors import ConfigError
from dfkdata.media import Media
from dfkdata.plan import Plan, Summary, reject_limit
from dfkdata.records import Fault, Record, Reject
from dfkdata.rows import training_row

EXPORTS = "dfkdata.exports"
_CODE = {name: code for code, name in enumerate(split.SPLITS)}
_TRAIN = _CODE["train"]


def convert(
    input: str | Path,
    out: str | Path,
    *,
    format: str,
    to: str = "messages",
    schema: str | None = None,
    variant: str | None = None,
    images: str | Path | None = None,
    seed: int = 42,
    max_rejects: str | int = "0%",
    validation: float = 0.1,
    test: float = 0.0,
    group_by: str | None = None,
    split_column: str | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    overwrite: bool = False,
    nulls: Literal["omit", "keep"] = "omit",
    rules: dict[str, checks.Policy] | None = None,
    options: dict[str, Any] | None = None,
) -> Summary:
    """Convert `input` from a raw `format` to the training layout `to`, into the folder `out`.

    schema: default the format's own. images: folder where image names start, default the input's folder.
    validation, test: shares of groups in [0, 1). group_by: field of the raw row (dotted) instead of the
    format's group. split_column: field that names each row's split. validation_file, test_file: rows that are
    held out; then no share is cut from `input`. max_rejects: "2%" of all rows or a count. rules: rule code ->
    policy. options: the format's own. Raises `ConfigError` before anything is written, `DataError` for a file
    that is not of the format."""
    limit = reject_limit(max_rejects)
    fixed = bool(validation_file or test_file)
    if fixed and split_column:
        raise ConfigError(
            "--split-column and --validation-file/--test-file both fix the split; give one of them"
        )
    asked = {
        "format": format, "to": to, "schema_name": schema, "variant": variant, "seed": seed,
        "validation": 0.0 if fixed else validation, "test": 0.0 if fixed else test, "group_by": group_by,
        "split_column": split_column, "nulls": nulls, "rules": rules or {}, "options": options or {},
    }  # fmt: skip
    inputs = [(Path(input), "train" if fixed else None)]
    inputs += [
        (Path(file), side) for file, side in ((validation_file, "validation"), (test_file, "test")) if file
    ]
    for path, _ in inputs:
        if not path.exists():
            raise ConfigError(f"{path}: no such file")
    root = Path(images) if images is not None else None
    job = _Job(bind(asked, Plan, "convert"), inputs, root, output.Folder(Path(out)))
    return job.convert(limit, overwrite)


class _Job:
    """A conversion before it runs: names are resolved, nothing is open."""

    def __init__(
        self, plan: Plan, inputs: list[tuple[Path, str | None]], images: Path | None, folder: output.Folder
    ) -> None:
        self.plan, self.inputs, self.images, self.folder = plan, inputs, images, folder
        self.format: ModuleType = plugins.load(reader.FAMILY, plan.format)
        self.options = bind(plan.options, self.format.Options, f"format {plan.format}")
        self.export: ModuleType = plugins.load(EXPORTS, plan.to)
        name = plan.schema_name or self.format.SCHEMA
        self.schema = schemas.load(name, plan.variant) if name else None
        self.side = split.ByHash(plan.seed, plan.validation, plan.test)

    def convert(self, limit: Callable[[int], float], overwrite: bool) -> Summary:
        """Do the work, or find that it is done."""
        head = self._head()
        old = None if overwrite else self.folder.manifest()
        if old is not None:
            if any(old.get(key) != value for key, value in head.items()):
                raise self._other(old, head)
            if not old["images"] and not any(code.startswith("IMG") for code in old["codes"]):
                return self._summary(old, limit, fresh=False)
        self.folder.start()
        try:
            manifest = head | _Flow(self).run()
            if old is None:
                self.folder.finish(manifest)
            elif old != manifest:
                raise self._other(old, manifest)
        finally:
            self.folder.discard()
        return self._summary(manifest, limit, fresh=old is None)

    def _head(self) -> dict[str, Any]:
        """What makes this conversion the same as another: configuration and inputs."""
        config = {key: value for key, value in self.plan.model_dump().items() if value is not None}
        config["options"] = self.options.model_dump()
        facts = [output.file_facts(path) | ({"split": side} if side else {}) for path, side in self.inputs]
        return {"manifest": 1, "config": config, "inputs": facts}

    def _other(self, old: dict[str, Any], new: dict[str, Any]) -> ConfigError:
        keys = ("config", "inputs", "images", "rows", "outputs")
        changed = " and ".join(key for key in keys if key in new and old.get(key) != new[key])
        what = f"{self.folder.final}: holds another conversion ({changed or 'version'} differ)"
        return ConfigError(f"{what}; give another --out or use --overwrite")

    def _summary(self, manifest: dict[str, Any], limit: Callable[[int], float], fresh: bool) -> Summary:
        rows = manifest["rows"]
        written = {Path(entry["path"]).stem: entry["rows"] for entry in manifest["outputs"]}
        splits = {name: written[name] for name in split.SPLITS if name in written}
        too_many = rows["quarantined"] > limit(rows["in"])
        return Summary(
            self.folder.final, rows, splits, manifest["codes"], manifest["warnings"], too_many, fresh
        )


class _Flow:
    """One run over all rows: what is open and counted while they flow."""

    def __init__(self, job: _Job) -> None:
        self.job, self.plan, self.schema, self.folder = job, job.plan, job.schema, job.folder
        self.files = {name: self.folder.lines(f"{name}.jsonl") for name in split.SPLITS}
        self.quarantine, self.duplicates = (
            self.folder.lines(f"{name}.jsonl") for name in ("quarantine", "duplicates")
        )
        self.digests = (self.folder.partial / "train.digests").open("wb", buffering=1 << 20)
        self.seen, self.keys = Seen(), Seen()
        self.evicted: set[int] = set()
        self.rejects, self.warnings = tally.Rules(), tally.Rules()
        self.labels = tally.Labels(self.schema, split.SPLITS)
        self.judge = checks.Judge(self.plan.rules, self.warnings.add)
        self.rows = {"in": 0, "out": 0, "quarantined": 0, "duplicates": 0, "left_out": 0}
        self.image_hash, self.image_count = sha256(), 0
        self.relative = self.folder.relative()
        self.encode = msgspec.json.Encoder().encode
        self.identity = self.plan.to == "messages"

    def run(self) -> dict[str, Any]:
        """All rows of all inputs; the manifest's part about rows and outputs."""
        job = self.job
        for path, fixed in job.inputs:
            root = job.images if job.images is not None else path.parent
            self.media = Media((root,), self.folder.partial / output.MEDIA)
            for raw, item in reader.pairs(path, job.format, job.options, self.media):
                self.rows["in"] += 1
                try:
                    if type(item) is Record:
                        self._row(raw, item, fixed)
                    else:
                        self._reject(item)  # type: ignore[arg-type]  # a pair holds a Record or a Reject
                except Fault as fault:
                    self._reject(fault.reject(item.source, raw))
        return self._close()

    def _reject(self, reject: Reject) -> None:
        self.rows["quarantined"] += 1
        self.quarantine.put(self.encode(reject))
        self.rejects.add(reject)

    def _row(self, raw: Any, record: Record, fixed: str | None) -> None:
        """One record through checks, deduplication, split and export. Raises `Fault`."""
        self.judge.source = record.source
        side = fixed or record.split or self._own_split(raw)
        if self.schema is not None:
            record = checks.bind_gold(record, self.schema, self.judge)
        row = training_row(record, self.schema, nulls=self.plan.nulls)
        pictures = self._pictures(record, row) if record.images else None
        checks.conversation(row, self.judge)
        turns: bytes = self.encode(row["messages"])
        digest = reader.turns_digest(turns, row.get("tools"))
        if not record.id:
            row["id"] = digest.hex()
        group = _group(raw, self.plan.group_by) if self.plan.group_by else record.group or row["id"]
        row["meta"]["group"] = group
        if not turns.isascii():
            turns, digest = self._normal(row, turns, digest)
        if pictures:
            digest = sha256(b"".join((digest, *pictures))).digest()[:8]
        side = side or self.job.side(group)
        if self._placed(raw, record, row, digest, side):
            self._write(record, row, turns, digest, side)

    def _own_split(self, raw: Any) -> str | None:
        column = self.plan.split_column
        return split.named(lookup(raw, column), column) if column else None

    def _pictures(self, record: Record, row: dict[str, Any]) -> list[bytes]:
        """Audit the row's pictures and write their paths as seen from the output; their hashes."""
        found = [self.media.picture(path).digest for path in record.images]
        row["images"] = [self.relative(path) for path in record.images]
        return found

    def _normal(self, row: dict[str, Any], turns: bytes, digest: bytes) -> tuple[bytes, bytes]:
        """The turns in Unicode normal form C and their digest; the row changes with them."""
        text = checks.normal(turns.decode(), self.judge)
        if text is None:
            return turns, digest
        row["messages"] = msgspec.json.decode(text)
        row["meta"] = msgspec.json.decode(checks.nfc(self.encode(row["meta"]).decode()))
        return text.encode(), reader.turns_digest(text.encode(), row.get("tools"))

    def _placed(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, side: str) -> bool:
        """Whether the row is to be written; a copy of an earlier one is not. Raises `Fault` for a key used
        twice."""
        key = int.from_bytes(digest)
        before = self.seen.put(key, _CODE[side])
        if before is not None:
            if before != _TRAIN or side == "train":
                self._duplicate(raw, record.source, row["id"], split.SPLITS[before])
                return False
            self.evicted.add(key)
            self.seen.change(key, _CODE[side])
        elif (
            record.keyed
            and self.keys.put(int.from_bytes(sha256(record.id.encode()).digest()[:8]), 0) is not None
        ):
            hint = "give each row a key of its own, or leave the key out"
            reason = f"another row has the id {record.id!r}"
            raise Fault("ID_TWICE", reason, path="id", value=record.id, hint=hint)
        return True

    def _write(self, record: Record, row: dict[str, Any], turns: bytes, digest: bytes, side: str) -> None:
        if self.identity:
            row["messages"] = msgspec.Raw(turns)
        else:
            row = self.job.export.row(row)
            self.job.export.check(row)
        if side == "train":
            self.digests.write(digest)
        self.rows["out"] += 1
        self.files[side].put(self.encode(row))
        if record.gold is not None:
            self.labels.add(record, side)
        for path in record.images:
            self.image_count += 1
            self.image_hash.update(self.media.picture(path).digest)

    def _duplicate(self, raw: Any, source: str, name: str, kept: str) -> None:
        self.rows["duplicates"] += 1
        self.duplicates.put(self.encode({"source": source, "id": name, "kept": kept, "raw": raw}))

    def _close(self) -> dict[str, Any]:
        self.digests.close()
        for file in (*self.files.values(), self.quarantine):
            file.close()
        if self.evicted:
            self._evict()
        self.duplicates.close()
        (self.folder.partial / "train.digests").unlink()
        wanted = self.plan.test > 0 or any(side == "test" for _, side in self.job.inputs)
        if not wanted and not self.files["test"].rows:
            self.files.pop("test").path.unlink()
        return self._facts()

    def _evict(self) -> None:
        """Take the training copies of held-out rows out of train.jsonl; each goes to duplicates.jsonl."""
        path = self.files["train"].path
        old = path.rename(path.with_suffix(".before"))
        kept = self.folder.lines("train.jsonl")
        with old.open("rb") as lines, path.with_name("train.digests").open("rb") as digests:
            for line in lines:
                if int.from_bytes(digests.read(8)) not in self.evicted:
                    kept.put(line.rstrip(b"\n"))
                    continue
                row = msgspec.json.decode(line)
                meta = row.get("meta", {})
                self.rows["out"] -= 1
                self._duplicate(row, meta.get("source", ""), row.get("id", ""), "held out")
                self.labels.remove(meta, "train")
        kept.close()
        old.unlink()
        self.files["train"] = kept

    def _facts(self) -> dict[str, Any]:
        self.judge.source = "all rows"
        for sentence in self.labels.rare():
            self.judge(Fault("CLASS_RARE", sentence))
        images = (
            {"count": self.image_count, "sha256": self.image_hash.hexdigest()} if self.image_count else {}
        )
        outputs = (*self.files.values(), self.quarantine, self.duplicates)
        return {
            "rows": dict(self.rows),
            "codes": self.rejects.facts(),
            "warnings": self.warnings.facts(),
            "labels": self.labels.facts(),
            "images": images,
            "outputs": sorted((file.facts for file in outputs), key=lambda facts: str(facts["path"])),
        }


def lookup(raw: Any, path: str) -> Any:
    """The value at a dotted path of a raw row; None where there is none."""
    for step in path.split("."):
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw


def _group(raw: Any, path: str) -> str:
    value = lookup(raw, path)
    if value is None or isinstance(value, dict | list) or not str(value).strip():
        hint = "give each row a value to group by"
        raise Fault("GROUP_MISSING", f"{path} holds no value", path=path, value=value, hint=hint)
    return str(value).strip()
