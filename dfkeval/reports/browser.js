"use strict";
// The browser over all samples: filters, search, a list that draws only what is seen, and a card. The address holds the state.
(async () => {
  const { el, draw, badges } = dfkCard;
  const root = document.getElementById("browser");
  const cache = new Map();
  const unpack = (name) => {
    if (!cache.has(name)) cache.set(name, (async () => {
      const block = document.getElementById(`data-${name}`);
      if (!block) return null;
      let text = block.textContent;
      if (text[0] === "z") {
        const bytes = Uint8Array.from(atob(text.slice(1)), (sign) => sign.charCodeAt(0));
        text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
      }
      block.textContent = "";
      return JSON.parse(text);
    })());
    return cache.get(name);
  };
  const { sets, words: w } = await unpack("report");
  if (!sets.length) return;
  for (const set of sets) set.words = w;
  const runs = sets.flatMap((set, at) => set.runs.map((run, index) => ({ ...run, set: at, index })));
  const HEIGHT = 60, SORTS = ["wrong", "unsure", "sure", "worst", "best", "data"];

  // --- state ------------------------------------------------------------------------------------------------
  const initial = () => {
    const run = runs.find((each) => each.set === 0 && each.index === sets[0].runs.length - 1);
    return { run: String(run.place), sort: "wrong" };
  };
  let state = initial(), view = [], at = -1;
  const focus = () => runs.find((run) => String(run.place) === state.run) || runs[0];
  const current = () => sets[focus().set];
  const against = () => {
    const others = runs.filter((run) => run.set === focus().set && run !== focus());
    return others.find((run) => String(run.place) === state.against) || others[0] || null;
  };
  const fromAddress = () => {
    if (!location.hash.includes("=")) return false;
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state = { ...initial(), ...given };
    if (!SORTS.includes(state.sort)) state.sort = "wrong";
    return true;
  };
  const toAddress = () => {
    const shown = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== "" && value !== undefined));
    history.replaceState(null, "", `#${shown}`);
  };

  // --- which rows -------------------------------------------------------------------------------------------
  const change = (set, row) => {
    const other = against();
    if (!other) return "";
    const a = set.answers[other.index], b = set.answers[focus().index];
    const answered = (side) => side.outcome[row] >= 0 && !["request_failed", "timeout"].includes(set.outcomes[side.outcome[row]].code);
    if (!answered(a) || !answered(b) || a.kind[row] === b.kind[row]) return "same";
    const before = a.right[row] === 1, after = b.right[row] === 1;
    return before === after ? "other" : after ? "better" : "worse";
  };
  const label = (set, name) => (name === "unparsed" ? set.labels.length : set.labels.indexOf(name));
  const filters = (set) => {
    const own = set.answers[focus().index], tests = [(row) => own.outcome[row] >= 0];
    if (state.outcome) tests.push((row) => own.outcome[row] >= 0 && set.outcomes[own.outcome[row]].code === state.outcome);
    if (state.right) tests.push((row) => String(own.right[row]) === state.right);
    if (state.gold) tests.push((row) => set.gold[row] === label(set, state.gold));
    if (state.answer) tests.push((row) => own.label[row] === label(set, state.answer));
    if (state.changed) tests.push((row) => change(set, row) === state.changed);
    for (const [name, slice] of Object.entries(set.slices)) {
      const wanted = state[`slice.${name}`];
      if (wanted !== undefined && wanted !== "") tests.push((row) => slice.values[slice.rows[row]] === wanted);
    }
    return tests;
  };
  const sorted = (set, rows) => {
    const own = set.answers[focus().index];
    const last = (value, sign) => (value === null || value === undefined ? Infinity : sign * value);
    const wrongness = (row) => {
      const kind = (set.outcomes[own.outcome[row]] || {}).kind;
      return own.right[row] === 0 ? 0 : kind === "bad" ? 1 : kind === "warn" ? 2 : own.right[row] === 2 ? 3 : 4;
    };
    const keys = {
      wrong: (row) => [wrongness(row), wrongness(row) < 2 ? last(own.sure[row], -1) : last(own.sure[row], 1), last(own.score[row], 1)],
      unsure: (row) => [last(own.sure[row], 1)], sure: (row) => [last(own.sure[row], -1)],
      worst: (row) => [last(own.score[row], 1)], best: (row) => [last(own.score[row], -1)], data: () => [],
    };
    const made = rows.map((row) => [row, keys[state.sort](row)]);
    const compare = (a, b) => (a === b ? 0 : a < b ? -1 : 1);
    made.sort((a, b) => {
      for (let part = 0; part < a[1].length; part++) { const order = compare(a[1][part], b[1][part]); if (order) return order; }
      return a[0] - b[0];
    });
    return made.map(([row]) => row);
  };
  const haystacks = new Map();
  const haystack = async (set, number) => {
    if (!haystacks.has(number)) {
      const texts = [];
      for (let chunk = 0; chunk * set.chunk < set.ids.length; chunk++) {
        for (const row of await unpack(`rows-${number}-${chunk}`)) {
          const said = row.answers.filter(Boolean).map((answer) => (answer.text || []).map((piece) => (typeof piece === "string" ? piece : piece[0])).join(""));
          texts.push([set.ids[texts.length], row.prompt, row.source, JSON.stringify(row.gold), ...said].join("\n").toLowerCase());
        }
      }
      haystacks.set(number, texts);
    }
    return haystacks.get(number);
  };

  // --- the frame --------------------------------------------------------------------------------------------
  const controls = el("div", { class: "controls" });
  const search = el("input", { type: "search", placeholder: w.search, "aria-label": w.search });
  const list = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": w.list });
  const space = el("div", { class: "space", role: "presentation" });
  const card = el("article", { class: "card", "aria-label": w.sample, "aria-live": "off" });
  const none = el("p", { class: "quiet nothing", hidden: "" }, w.no_match);
  list.append(space);
  root.replaceChildren(controls, el("div", { class: "split" }, el("div", { class: "side" }, list, none), card),
    el("p", { class: "quiet hints" }, ...w.hints.split("|").map((part, index) => (index % 2 ? part : el("kbd", {}, part)))));

  const select = (key, title, options) => {
    const made = el("select", { "aria-label": title, title, "data-key": key });
    for (const [value, text] of options) made.append(el("option", { value, selected: String(state[key] ?? "") === value ? "" : null }, text));
    made.addEventListener("change", () => {
      if (key === "run") { state = { ...initial(), run: made.value, sort: state.sort }; }
      else if (made.value) state[key] = made.value; else delete state[key];
      delete state.id;
      apply();
    });
    return made;
  };
  const counted = (values, of) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].filter(([value]) => value >= 0 && of[value] !== undefined).sort((a, b) => a[0] - b[0]);
  };
  const drawControls = () => {
    const set = current(), own = set.answers[focus().index], any = (title) => ["", title], parts = [];
    if (runs.length > 1) parts.push(select("run", w.run, runs.map((run) => [String(run.place), run.name])));
    const others = runs.filter((run) => run.set === focus().set && run !== focus());
    if (others.length > 1) parts.push(select("against", w.against, others.map((run) => [String(run.place), `${w.against} ${run.name}`])));
    parts.push(select("outcome", w.outcome, [any(w.any_outcome),
      ...counted(own.outcome, set.outcomes).map(([code, n]) => [set.outcomes[code].code, `${set.outcomes[code].sign} ${set.outcomes[code].name} (${n})`])]));
    parts.push(select("right", w.verdict, [any(w.any_verdict), ["1", w.right], ["0", w.wrong], ["2", w.undecided]]));
    if (set.labels.length) {
      const names = [...set.labels, "unparsed"];
      parts.push(select("gold", w.gold, [any(w.any_gold), ...counted(set.gold, names).map(([code, n]) => [names[code], `${w.gold}: ${names[code]} (${n})`])]));
      parts.push(select("answer", w.answer, [any(w.any_answer), ...counted(own.label, names).map(([code, n]) => [names[code], `${w.answer}: ${code < set.labels.length ? names[code] : w.unparsed} (${n})`])]));
    }
    if (others.length) parts.push(select("changed", w.changed, [any(w.any_change), ...["better", "worse", "other", "same"].map((kind) => [kind, w[`changed_${kind}`]])]));
    for (const [name, slice] of Object.entries(set.slices)) {
      parts.push(select(`slice.${name}`, name, [any(`${name}: ${w.all}`), ...slice.values.map((value) => [value, `${name}: ${value || w.nothing}`])]));
    }
    const sorts = SORTS.filter((sort) => (sort === "unsure" || sort === "sure" ? own.sure.some((p) => p !== null) : sort === "worst" || sort === "best" ? set.score : true));
    parts.push(select("sort", w.sort, sorts.map((sort) => [sort, w[`sort_${sort}`].replace("{score}", set.score)])));
    const reset = el("button", { class: "button", type: "button" }, w.reset);
    reset.addEventListener("click", () => { state = { ...initial(), run: state.run }; apply(); });
    const active = document.activeElement, key = active && active.dataset ? active.dataset.key : null;
    controls.replaceChildren(search, ...parts, reset);
    if (active === search) search.focus();
    else if (key) { const again = controls.querySelector(`[data-key="${CSS.escape(key)}"]`); if (again) again.focus(); }
    if (search.value !== (state.q || "")) search.value = state.q || "";
  };

  // --- the list ---------------------------------------------------------------------------------------------
  const short = (set, code) => (code < 0 ? "–" : code < set.labels.length ? set.labels[code] : w.unparsed);
  const item = (place) => {
    const set = current(), row = view[place], own = set.answers[focus().index], changed = change(set, row);
    const labels = set.labels.length && set.gold[row] >= 0
      ? short(set, set.gold[row]) + (set.gold[row] === own.label[row] ? "" : ` → ${short(set, own.label[row])}`) : "";
    const numbers = own.sure[row] !== null ? own.sure[row].toFixed(2) : own.score[row] !== null ? own.score[row].toFixed(2) : "";
    const made = el("div", { class: `item${place === at ? " chosen" : ""}`, role: "option", id: `item-${place}`, "aria-selected": String(place === at) },
      el("div", { class: "line" }, ...badges(set, focus().index, null, row),
        changed === "better" || changed === "worse" ? el("span", { class: `mark ${changed === "better" ? "good" : "bad"}`, title: w[`changed_${changed}`] }, "") : null,
        el("span", { class: "numbers" }, numbers)),
      el("div", { class: "head" }, labels ? el("strong", {}, labels) : null, labels ? " " : null, set.heads[row] || set.ids[row]));
    made.style.transform = `translateY(${place * HEIGHT}px)`;
    made.addEventListener("click", () => choose(place));
    return made;
  };
  const drawList = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 6);
    const last = Math.min(view.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 6);
    space.style.height = `${view.length * HEIGHT}px`;
    space.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, index) => item(first + index)));
    if (at >= 0) list.setAttribute("aria-activedescendant", `item-${at}`); else list.removeAttribute("aria-activedescendant");
  };
  let waiting = false;
  list.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawList(); });
  }, { passive: true });
  addEventListener("resize", drawList);

  // --- the card ---------------------------------------------------------------------------------------------
  let drawn = 0;
  const drawCard = async () => {
    const mine = ++drawn;
    if (at < 0) { card.replaceChildren(); return; }
    const set = current(), row = view[at], number = focus().set, chunk = Math.floor(row / set.chunk);
    const [rows, uris] = await Promise.all([unpack(`rows-${number}-${chunk}`), unpack(`pictures-${number}-${chunk}`)]);
    if (mine !== drawn) return;
    const order = [focus().index, ...set.runs.map((_, index) => index).filter((index) => index !== focus().index)];
    const other = against();
    if (other) { order.splice(order.indexOf(other.index), 1); order.splice(1, 0, other.index); }
    const step = (sign, delta, title) => {
      const button = el("button", { class: "button", type: "button", title, "aria-label": title, disabled: view[at + delta] === undefined ? "" : null }, sign);
      button.addEventListener("click", () => choose(at + delta));
      return button;
    };
    const facts = Object.entries(set.slices).filter(([name]) => name !== "pictures").map(([name, slice]) => el("span", { class: "badge" }, `${name}: ${slice.values[slice.rows[row]] || w.nothing}`));
    const link = el("a", { class: "mono", href: `#run=${state.run}&id=${encodeURIComponent(set.ids[row])}`, title: w.link }, set.ids[row]);
    card.replaceChildren(
      el("header", { class: "card-head" }, el("div", { class: "line" }, ...badges(set, focus().index, rows[row % set.chunk], row), ...facts),
        el("div", { class: "line" }, link, el("span", { class: "quiet" }, `${(at + 1).toLocaleString(document.documentElement.lang)} / ${view.length.toLocaleString(document.documentElement.lang)}`),
          el("span", { class: "steps" }, step("↑", -1, w.previous), step("↓", 1, w.next)))),
      ...draw(rows[row % set.chunk], uris || [], set, row, order));
    card.scrollTop = 0;
  };
  const choose = (place) => {
    if (place < 0 || place >= view.length) return;
    at = place;
    state.id = current().ids[view[at]];
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    toAddress();
    drawList();
    drawCard();
  };

  // --- putting it together ----------------------------------------------------------------------------------
  let applied = 0;
  const apply = async (address = true) => {
    const mine = ++applied, set = current(), tests = filters(set);
    drawControls();
    let rows = set.ids.map((_, row) => row).filter((row) => tests.every((test) => test(row)));
    if (state.q) {
      root.classList.add("busy");
      const texts = await haystack(set, focus().set), wanted = state.q.toLowerCase();
      root.classList.remove("busy");
      if (mine !== applied) return;
      rows = rows.filter((row) => texts[row].includes(wanted));
    }
    view = sorted(set, rows);
    at = view.length ? 0 : -1;
    if (state.id !== undefined) {
      const found = view.findIndex((row) => set.ids[row] === state.id);
      if (found >= 0) at = found; else delete state.id;
    }
    const total = set.ids.length.toLocaleString(document.documentElement.lang);
    document.getElementById("count").textContent = view.length === set.ids.length ? total : `${view.length.toLocaleString(document.documentElement.lang)} / ${total}`;
    none.hidden = view.length > 0;
    list.scrollTop = at > 3 ? (at - 2) * HEIGHT : 0;
    if (address) toAddress();
    drawList();
    await drawCard();
  };
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { if (search.value) state.q = search.value; else delete state.q; delete state.id; apply(); }, 150);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typed = event.target.closest && event.target.closest("input, select, textarea");
    if (typed) { if (event.key === "Escape") typed.blur(); return; }
    const inList = event.target === list;
    if (event.key === "j" || (inList && event.key === "ArrowDown")) choose(at + 1);
    else if (event.key === "k" || (inList && event.key === "ArrowUp")) choose(at - 1);
    else if (inList && event.key === "Home") choose(0);
    else if (inList && event.key === "End") choose(view.length - 1);
    else if (event.key === "/") search.focus();
    else if (event.key === "w") { if (state.right === "0") delete state.right; else state.right = "0"; delete state.id; apply(); }
    else return;
    event.preventDefault();
  });
  const there = () => document.getElementById("samples").scrollIntoView({ block: "start", behavior: "instant" });
  addEventListener("hashchange", async () => { if (fromAddress()) { await apply(); there(); } });
  const linked = fromAddress();
  await apply(linked);
  if (linked) there();
  root.dataset.ready = "";
})();
