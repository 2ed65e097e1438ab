"use strict";
// What every page can do: hover values of charts, pictures that enlarge, the current section, unfolding for print.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const near = (chart, event) => {
    let best = null, least = 40 * 40;
    for (const point of chart.querySelectorAll("circle")) {
      const box = point.getBoundingClientRect();
      const x = box.x + box.width / 2 - event.clientX, y = box.y + box.height / 2 - event.clientY;
      const far = x * x * 4 + y * y;
      if (far < least) { least = far; best = point; }
    }
    return best || (event.target.closest && event.target.closest("rect.hover-bar"));
  };
  const show = (point, chart) => {
    for (const old of chart.querySelectorAll(".near")) old.classList.remove("near");
    tip.hidden = !point;
    if (!point) return;
    const title = point.querySelector("title");
    if (title) { point.dataset.tip = title.textContent; title.remove(); }
    tip.textContent = point.dataset.tip || "";
    if (point.tagName === "circle") point.classList.add("near");
    const box = point.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.x + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(8, box.y - tip.offsetHeight - 8)}px`;
  };
  for (const chart of document.querySelectorAll("svg.chart")) {
    chart.addEventListener("pointermove", (event) => show(near(chart, event), chart));
    chart.addEventListener("pointerleave", () => show(null, chart));
  }

  const enlarge = (small) => {
    const box = document.createElement("dialog"), large = new Image(), name = document.createElement("p");
    box.className = "large";
    large.src = small.src;
    large.alt = small.alt;
    name.textContent = small.alt;
    box.append(large, name);
    box.addEventListener("click", () => box.close());
    box.addEventListener("close", () => box.remove());
    document.body.append(box);
    box.showModal();
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button.thumb");
    if (button) enlarge(button.querySelector("img"));
  });

  const links = [...document.querySelectorAll(".top nav a[href^='#']")];
  const places = links.map((link) => document.getElementById(link.hash.slice(1)));
  const current = () => {
    let at = -1;
    places.forEach((place, index) => { if (place && place.getBoundingClientRect().top < 130) at = index; });
    if (innerHeight + scrollY >= document.documentElement.scrollHeight - 4) at = places.length - 1;
    links.forEach((link, index) => {
      if (index === at && !link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 40;
      } else if (index !== at) link.removeAttribute("aria-current");
    });
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; current(); });
  }, { passive: true });
  if (links.length) current();

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; part.dataset.print = ""; }
  });
  addEventListener("afterprint", () => {
    for (const part of document.querySelectorAll("details[data-print]")) { part.open = false; delete part.dataset.print; }
  });
})();
