"use strict";
// Pages and filters the rows of a page; without it all rows are seen.
(() => {
  const grid = document.querySelector(".row-grid");
  if (!grid) return;
  const rows = [...grid.children], size = Number(grid.dataset.page);
  const controls = document.querySelector(".rows-controls"), pager = document.querySelector(".pager");
  const search = controls.querySelector("input"), selects = [...controls.querySelectorAll("select")];
  const at = pager.querySelector(".at"), none = document.querySelector(".none-fits");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  let page = 0;
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fit = rows.filter((row, index) =>
      words.every((word) => texts[index].includes(word)) &&
      selects.every((select) => !select.value || row.dataset[select.dataset.of] === select.value));
    const pages = Math.max(1, Math.ceil(fit.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    const seen = new Set(fit.slice(page * size, (page + 1) * size));
    for (const row of rows) row.hidden = !seen.has(row);
    none.hidden = fit.length > 0;
    pager.hidden = pages < 2;
    at.textContent = at.dataset.text.replace("{at}", page + 1).replace("{n}", pages);
    const [back, on] = pager.querySelectorAll("button");
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  };
  for (const field of [search, ...selects]) field.addEventListener("input", () => { page = 0; draw(); });
  for (const button of pager.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      page += Number(button.dataset.step);
      draw();
      grid.scrollIntoView({ block: "start", behavior: "instant" });
    });
  }
  controls.hidden = rows.length < 2;
  draw();
  addEventListener("beforeprint", () => { for (const row of rows) row.hidden = false; });
  addEventListener("afterprint", draw);
})();
