"use strict";
// Without this script everything is on the page; it adds sorting and the choice of rows.
document.documentElement.classList.add("scripted");

const number = (text) => {
  const found = text.replace("−", "-").match(/^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?/i);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
};

const compare = (a, b, way) => {
  const [x, y] = [number(a), number(b)];
  const [none, other] = [x, y].map(Number.isNaN);
  if (none !== other) return none - other;  // what is no number stands last, whichever way
  return way * (none ? a.localeCompare(b) : x - y);
};

function sort(head, column) {
  const up = head.getAttribute("aria-sort") === "descending";
  const body = head.closest("table").tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((a, b) => compare(text(a), text(b), up ? 1 : -1));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  for (const row of rows) row.classList.remove("first");
  body.append(...rows);
}

for (const head of document.querySelectorAll("thead th")) {
  if (!head.textContent) continue;
  const button = document.createElement("button");
  button.textContent = head.textContent;
  button.addEventListener("click", () => sort(head, head.cellIndex));
  head.replaceChildren(button);
}

const showRow = (box) => {
  for (const part of document.querySelectorAll("svg [data-row]")) {
    if (part.dataset.row === box.value) part.classList.toggle("hidden", !box.checked);
  }
};
for (const box of document.querySelectorAll(".rows input")) {
  showRow(box);
  box.addEventListener("change", () => showRow(box));
}
