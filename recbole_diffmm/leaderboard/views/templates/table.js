"use strict";
// Sorts every table.sortable by the buttons in its header. What has no key stays last, whichever way.
document.documentElement.classList.add("js");

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sortTable(table, heads, column));
  });
}

function sortTable(table, heads, column) {
  const head = heads[column];
  const before = head.getAttribute("aria-sort");
  const opposite = before === "ascending" ? "descending" : "ascending";
  const order = before === "none" ? head.dataset.first : opposite;
  for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");

  const body = table.tBodies[0];
  const lines = [...body.querySelectorAll(":scope > tr.line")].map((row, place) => {
    const key = row.cells[column].dataset.key;
    const panel = row.nextElementSibling;
    // An opened panel is the row below its row and moves with it.
    return { row, panel: panel && panel.classList.contains("drill") ? panel : null, key, place };
  });
  const text = head.classList.contains("text") || head.classList.contains("label");
  const sign = order === "ascending" ? 1 : -1;
  lines.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined) || a.place - b.place;
    const apart = text ? a.key.localeCompare(b.key, undefined, { numeric: true }) : a.key - b.key;
    return sign * apart || a.place - b.place;
  });
  body.append(...lines.flatMap(({ row, panel }) => (panel ? [row, panel] : [row])));
}
