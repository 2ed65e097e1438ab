"use strict";
// One sample as a card: pictures, prompt, the raw answer with its fields and problems, gold beside answers, probabilities.
const dfkCard = (() => {
  const el = (tag, attributes = {}, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...inside.filter((part) => part !== null && part !== undefined));
    return made;
  };
  const svg = (tag, attributes, ...inside) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const fold = (text) => String(text).split(/\s+/).join(" ").trim().toLowerCase();

  // Words of two texts: [text, shared] pieces of each, by their longest common subsequence.
  const MOST = 700;
  const cut = (text) => String(text).match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) || [];
  const compareWords = (left, right) => {
    const a = cut(left), b = cut(right);
    const wordsA = a.filter((t) => t.trim()).map((t) => t.toLowerCase());
    const wordsB = b.filter((t) => t.trim()).map((t) => t.toLowerCase());
    const inA = new Uint8Array(wordsA.length), inB = new Uint8Array(wordsB.length);
    if (wordsA.length > MOST || wordsB.length > MOST) {
      const setA = new Set(wordsA), setB = new Set(wordsB);
      wordsA.forEach((word, i) => { inA[i] = setB.has(word); });
      wordsB.forEach((word, i) => { inB[i] = setA.has(word); });
    } else {
      const n = wordsA.length, m = wordsB.length, table = new Uint16Array((n + 1) * (m + 1));
      for (let i = n - 1; i >= 0; i--) {
        for (let j = m - 1; j >= 0; j--) {
          table[i * (m + 1) + j] = wordsA[i] === wordsB[j]
            ? table[(i + 1) * (m + 1) + j + 1] + 1
            : Math.max(table[(i + 1) * (m + 1) + j], table[i * (m + 1) + j + 1]);
        }
      }
      for (let i = 0, j = 0; i < n && j < m;) {
        if (wordsA[i] === wordsB[j]) { inA[i++] = 1; inB[j++] = 1; }
        else if (table[(i + 1) * (m + 1) + j] >= table[i * (m + 1) + j + 1]) i++; else j++;
      }
    }
    const pieces = (tokens, shared) => {
      let at = 0;
      return tokens.map((token) => [token, token.trim() ? Boolean(shared[at++]) : true]);
    };
    return [pieces(a, inA), pieces(b, inB)];
  };
  const marked = (pieces, kind, title) => {
    const made = el("span", { class: "prose" });
    let run = "", open = false;
    const flush = () => {
      if (run) made.append(open ? el("span", { class: kind, title }, run) : run);
      run = "";
    };
    pieces.forEach(([text, shared], at) => {
      const between = !text.trim() && open && at + 1 < pieces.length && !pieces[at + 1][1];
      if (!between && open === shared) { flush(); open = !shared; }
      run += text;
    });
    flush();
    return made;
  };

  // The leaves of a value, an object's lists tied to its first text: "dog", "dog › red".
  const leaves = (value, prefix = "") => {
    if (value === null || value === undefined || value === "") return [];
    if (Array.isArray(value)) return value.flatMap((inner) => leaves(inner, prefix));
    if (typeof value !== "object") return [prefix + String(value)];
    const entries = Object.entries(value);
    const head = entries.find(([, inner]) => typeof inner === "string");
    const rest = entries.filter((entry) => entry !== head);
    const name = head ? head[1] : "";
    return (name ? [prefix + name] : []).concat(
      rest.flatMap(([key, inner]) => leaves(inner, `${prefix}${name ? `${name} › ` : `${key}: `}`)));
  };
  const isProse = (role, ...values) =>
    role === "Prose" || values.some((value) => typeof value === "string" && value.length > 60);

  const cell = (gold, value, role, missing, w, side) => {
    const own = side === "gold" ? gold : value, other = side === "gold" ? value : gold;
    if (own === undefined || own === null || own === "") return el("span", { class: "quiet" }, w.nothing);
    const kind = side === "gold" ? "lost" : "extra", title = side === "gold" ? w.only_gold : w.only_answer;
    if (isProse(role, own, other) && typeof own === "string") {
      if (typeof other !== "string") return el("span", { class: "prose" }, own);
      const [left, right] = compareWords(gold, value);
      return marked(side === "gold" ? left : right, kind, title);
    }
    const known = new Set(leaves(other).map(fold)), made = el("span", { class: "leaves" });
    const compare = other !== undefined && other !== null;
    for (const leaf of leaves(own)) {
      const invented = side === "answer" && missing.has(fold(leaf.split(" › ").pop()));
      const wrong = compare ? !known.has(fold(leaf)) : false;
      made.append(el("span", {
        class: `leaf${wrong ? ` ${kind}` : ""}${invented ? " invented" : ""}`,
        title: invented ? w.invented : wrong ? title : null,
      }, leaf, invented ? el("span", { class: "flag" }, " ⚠") : null));
    }
    return made.childNodes.length ? made : el("span", { class: "quiet" }, w.empty);
  };
  const same = (a, b) => {
    const [left, right] = [leaves(a).map(fold).sort(), leaves(b).map(fold).sort()];
    return left.length === right.length && left.every((leaf, at) => leaf === right[at]);
  };

  const fieldTable = (row, set, order, w) => {
    const values = order.map((at) => row.answers[at] && (row.answers[at].value || row.answers[at].lenient));
    const names = set.fields.filter((name) =>
      (row.gold && name in row.gold) || values.some((value) => value && name in value));
    if (!names.length) return null;
    const head = el("tr", {}, el("th", { scope: "col" }, w.field), row.gold ? el("th", { scope: "col" }, w.gold) : null,
      ...order.map((at) => el("th", { scope: "col" }, set.runs[at].name,
        row.answers[at] && row.answers[at].lenient ? el("span", { class: "quiet" }, ` ${w.after_repairs}`) : null)));
    const body = names.map((name, number) => {
      const gold = row.gold ? row.gold[name] : undefined, role = set.roles[name];
      const first = values.find((value) => value) || {};
      const line = el("tr", {}, el("th", { scope: "row" },
        el("span", { class: `dotted f${set.fields.indexOf(name) % 6}` }, name)));
      if (row.gold) line.append(el("td", {}, cell(gold, first[name], role, new Set(), w, "gold")));
      order.forEach((at, place) => {
        const value = values[place];
        if (!value) { line.append(el("td", { class: "quiet" }, number ? "" : w.no_value)); return; }
        const missing = new Set((row.answers[at].missing || []).map(fold));
        const inside = cell(gold, value[name], role, missing, w, "answer");
        const judged = row.gold && !isProse(role, gold, value[name]);
        const right = judged && same(gold, value[name]);
        line.append(el("td", { class: judged ? (right ? "same" : "other") : "" },
          judged ? el("div", { class: "judged" }, el("span", { class: "verdict-sign", title: right ? w.equal : w.differs }, right ? "=" : "≠"), inside) : inside));
      });
      return line;
    });
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": w.fields },
      el("table", { class: "fields" }, el("thead", {}, head), el("tbody", {}, ...body)));
  };

  const verbatim = (answer, set, w) => {
    const box = el("div", { class: "text answer-text", tabindex: "0" }), used = new Set();
    for (const piece of answer.text || []) {
      if (typeof piece === "string") { box.append(piece); continue; }
      const [text, field, problem] = piece;
      if (field >= 0) used.add(field);
      if (field < 0 && problem < 0) { box.append(text); continue; }
      box.append(el("span", {
        class: `${field >= 0 ? `f${field % 6}` : ""}${problem >= 0 ? " wavy" : ""}`.trim(),
        title: problem >= 0 ? answer.marks[problem] : set.fields[field],
      }, text));
    }
    if (!box.textContent) box.append(el("span", { class: "quiet" }, w.said_nothing));
    const keys = [...used].sort((a, b) => a - b).map((at) => el("span", { class: `dotted f${at % 6}` }, set.fields[at]));
    return [box, keys.length ? el("p", { class: "keys" }, ...keys) : null];
  };
  const notes = (answer, w) => {
    const lines = [...(answer.problems || []), ...(answer.differs ? [answer.differs] : []),
      ...(answer.repairs || []).map((name) => `${w.repair}: ${name}`)];
    if (answer.finish) lines.push(`${w.finish}: ${answer.finish}`);
    return lines.length ? el("ul", { class: "problems" }, ...lines.map((line) => el("li", {}, line))) : null;
  };
  const badges = (set, at, row, number) => {
    const own = set.answers[at], outcome = set.outcomes[own.outcome[number]], w = set.words;
    if (!outcome) return [el("span", { class: "badge" }, w.not_asked)];
    const right = own.right[number], names = (row && row.compared || []).join(", ");
    return [
      el("span", { class: `badge ${outcome.kind}`, title: outcome.meaning }, `${outcome.sign} ${outcome.name}`),
      right === 2 ? null : el("span", { class: `badge ${right ? "good" : "bad"}`, title: names },
        `${right ? "✓" : "✕"} ${right ? w.right : w.wrong}`),
    ].filter(Boolean);
  };
  const probabilities = (answer, set, number, w) => {
    const found = Object.entries(answer.sure || {}).sort((a, b) => b[1] - a[1]);
    if (!found.length) return null;
    const gold = set.labels[set.gold[number]];
    const rows = found.map(([name, p]) => el("tr", {}, el("th", { scope: "row" }, name, name === gold ? el("span", { class: "quiet" }, ` ★ ${w.gold}`) : null),
      el("td", { class: "bar" }, svg("svg", { class: "hbar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: "fill s0", width: (p * 100).toFixed(2), height: "10" }))),
      el("td", { class: "num" }, p.toFixed(3))));
    return el("table", { class: "bars probabilities" }, el("caption", {}, w.probabilities), el("tbody", {}, ...rows));
  };
  const folded = (title, open, ...inside) => {
    const made = el("details", { open: open ? "" : null }, el("summary", {}, title), ...inside);
    return made;
  };
  const picture = ([name, at], uris, w) => {
    if (at < 0 || !uris[at]) return el("span", { class: "badge warn" }, `${w.unreadable}: ${name}`);
    return el("button", { class: "thumb", type: "button" }, el("img", { src: uris[at], alt: name }));
  };

  // Everything of one row. `order`: the runs' places in the set, the one in focus first.
  const draw = (row, uris, set, number, order) => {
    const w = set.words, focus = order[0], answer = row.answers[focus], made = [];
    if (row.pictures.length) made.push(el("div", { class: "thumbs" }, ...row.pictures.map((each) => picture(each, uris, w))));
    if (row.prompt) made.push(folded(w.prompt, true, el("div", { class: "text prompt", tabindex: "0" }, row.prompt)));
    if (row.source && !row.prompt.includes(row.source)) {
      made.push(folded(w.source, false, el("div", { class: "text", tabindex: "0" }, row.source)));
    }
    made.push(el("h4", {}, `${w.answer_of} ${set.runs[focus].name}`));
    if (!answer) made.push(el("p", { class: "quiet" }, w.not_asked));
    else {
      if (answer.reasoning) made.push(folded(w.reasoning, false, el("div", { class: "text", tabindex: "0" }, answer.reasoning)));
      made.push(...verbatim(answer, set, w).filter(Boolean));
      const more = notes(answer, w);
      if (more) made.push(more);
    }
    const table = fieldTable(row, set, order.slice(0, 4), w);
    if (table) {
      made.push(el("h4", {}, w.fields), table, el("p", { class: "keys quiet" },
        el("span", { class: "lost" }, w.only_gold), el("span", { class: "extra" }, w.only_answer),
        order.some((at) => row.answers[at] && row.answers[at].missing) ? el("span", { class: "invented" }, `${w.invented} ⚠`) : null));
    }
    if (answer) { const sure = probabilities(answer, set, number, w); if (sure) made.push(sure); }
    for (const at of order.slice(1)) {
      const other = row.answers[at];
      if (other) made.push(folded(el("span", {}, `${w.answer_of} ${set.runs[at].name} `, ...badges(set, at, row, number)), false,
        ...verbatim(other, set, w).filter(Boolean), notes(other, w) || ""));
    }
    return made;
  };
  return { el, draw, badges };
})();
