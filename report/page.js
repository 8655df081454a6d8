"use strict";
// Each plot is drawn from the specification beside it; a plot that fails says so on the page and
// on the console, and its table still holds the numbers.
for (const { key, spec, aspect } of JSON.parse(document.getElementById("specs").textContent)) {
  const place = document.getElementById("chart-" + key);
  if (aspect !== null) {
    const legend = 62;
    spec.height = Math.round(Math.max(place.clientWidth - 10, 120) / aspect) + legend;
  }
  // As many names of a legend side by side as there is room for; more rows make the plot higher.
  const names = (spec.layer ?? [spec]).map((each) => each.encoding?.color?.scale?.domain).find(
    (domain) => typeof domain?.[0] === "string") ?? [];
  const widest = Math.max(8, ...names.map((name) => name.length));
  const columns = Math.floor((place.clientWidth - 80) / (6.6 * widest + 20));
  spec.config.legend.columns = Math.min(Math.max(columns, 1), 5);
  if (typeof spec.height === "number" && aspect === null) {
    spec.height += 14 * Math.max(Math.ceil(names.length / spec.config.legend.columns) - 1, 0);
  }
  // Thousands of squares are quick on a canvas and slow as elements.
  const renderer = JSON.stringify(spec).length > 200_000 ? "canvas" : "svg";
  vegaEmbed(place, spec, { renderer, actions: false }).then(
    () => place.classList.add("drawn"),
    (error) => {
      place.classList.add("failed");
      place.textContent = "This plot could not be drawn: " + error.message;
      console.error("plot", key, error);
    },
  );
}
for (const compare of document.querySelectorAll(".compare")) {
  const input = compare.querySelector("input");
  const show = () => compare.style.setProperty("--share", input.value + "%");
  input.addEventListener("input", show);
  show();
}
for (const choice of document.querySelectorAll(".choose")) {
  const shown = JSON.parse(document.getElementById("shown").textContent);
  const side = choice.dataset.side;
  const compare = choice.closest("figure").querySelector(".compare");
  const show = () => {
    const image = compare.querySelector("img." + side);
    image.src = shown[choice.value];
    image.alt = `The frame of ${choice.value}.`;
    compare.querySelector(side === "over" ? ".left" : ".right").textContent = choice.value;
  };
  choice.addEventListener("change", show);
  // A browser keeps what was chosen when a page is loaded again.
  show();
}
const filter = document.querySelector(".filter");
if (filter) {
  const boxes = [...filter.querySelectorAll("input")];
  const choose = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const system of document.querySelectorAll(".system")) {
      const rows = [...system.querySelectorAll("tbody tr")];
      for (const row of rows) row.hidden = !chosen.has(row.dataset.status);
      const shown = rows.filter((row) => !row.hidden).length;
      system.querySelector(".shown").textContent = `${shown} of ${rows.length}`;
    }
  };
  filter.addEventListener("change", choose);
  choose();
  for (const link of document.querySelectorAll('.claims a[href^="#claims-"]')) {
    link.addEventListener("click", () => { document.querySelector(link.hash).open = true; });
  }
}
