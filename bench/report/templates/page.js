"use strict";
// Without this script everything is on the page; it adds sorting and the choice of rows.
document.documentElement.classList.add("scripted");

const number = (text) => {
  // A number, and what may follow one: a date is none.
  const found = text.replace("−", "-").match(/^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?=$|[\s%±;])/i);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
};

const compare = (a, b, way) => {
  const [x, y] = [number(a), number(b)];
  const [none, other] = [x, y].map(Number.isNaN);
  if (none !== other) return none - other;  // what is no number stands last, whichever way
  return way * (none ? a.localeCompare(b, undefined, {numeric: true}) : x - y);
};

const asItCame = new WeakMap();  // of a table's body: its rows, each with its rule

function sort(head, column) {
  const body = head.closest("table").tBodies[0];
  if (!asItCame.has(body)) asItCame.set(body, [...body.rows].map((row) => [row, row.className]));
  const before = head.getAttribute("aria-sort");
  const text = (row) => row.cells[column].textContent.trim();
  const names = [...body.rows].every((row) => Number.isNaN(number(text(row))));
  const first = names ? "ascending" : "descending";  // names from A, numbers from the largest
  if (before && before !== first) {  // the third click
    head.removeAttribute("aria-sort");
    for (const [row, rule] of asItCame.get(body)) row.className = rule;
    body.append(...asItCame.get(body).map(([row]) => row));
    return;
  }
  const up = (first === "ascending") === !before;
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
    if (part.dataset.row !== box.value) continue;
    if (box.checked) part.removeAttribute("display");
    else part.setAttribute("display", "none");
  }
};
for (const box of document.querySelectorAll(".rows input")) {
  showRow(box);
  box.addEventListener("change", () => showRow(box));
}
