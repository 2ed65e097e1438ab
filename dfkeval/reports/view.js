"use strict";
// The list of runs and the page of a run that goes on: choose runs to compare, and stay true while files change.
(() => {
  const told = JSON.parse(document.getElementById("data-view").textContent);
  const live = () => document.getElementById("live");
  const boxes = () => [...document.querySelectorAll("input[name=run]")];
  const chosen = [];
  const button = document.getElementById("compare");
  const show = () => {
    for (const box of boxes()) box.checked = chosen.includes(box.value);
    if (!button) return;
    button.disabled = chosen.length < 2;
    button.textContent = button.disabled ? button.dataset.one : button.dataset.many.replace("{names}", chosen.join(" → "));
  };
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.name !== "run") return;
    const at = chosen.indexOf(box.value);
    if (box.checked && at < 0) chosen.push(box.value);
    if (!box.checked && at >= 0) chosen.splice(at, 1);
    show();
  });
  if (button) {
    button.addEventListener("click", () => {
      location.href = "/compare?" + new URLSearchParams(chosen.map((name) => ["run", name]));
    });
  }
  const renew = async () => {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || (button === null) !== (page.getElementById("compare") === null)) return location.reload();
    const open = [...live().querySelectorAll("details")].map((part) => part.open);
    live().replaceWith(document.adoptNode(fresh));
    [...live().querySelectorAll("details")].forEach((part, at) => { part.open = open[at] ?? part.open; });
    const there = new Set(boxes().map((box) => box.value));
    chosen.splice(0, chosen.length, ...chosen.filter((name) => there.has(name)));
    show();
  };
  const ask = async () => {
    try {
      if (!document.hidden) {
        const { state } = await (await fetch(told.address, { cache: "no-store" })).json();
        if (state !== told.state) {
          told.state = state;
          await renew();
        }
      }
    } catch { /* the server has ended; the page stays as it is */ }
    setTimeout(ask, 2000);
  };
  show();
  setTimeout(ask, 2000);
})();
