(() => {
"use strict";
// tables that sort: each header becomes a button
const value = (row, column) => {
  const cell = row.cells[column], given = cell.dataset.value;
  if (given === "") return null;
  const text = given === undefined ? cell.textContent.trim() : given;
  const number = Number(text);
  return text !== "" && Number.isFinite(number) ? number : text;
};
const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
const sort = (table, column) => {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const down = headers[column].getAttribute("aria-sort") === "ascending";
  headers.forEach((header, index) => {
    if (header.hasAttribute("aria-sort")) header.setAttribute("aria-sort", index !== column ? "none" : down ? "descending" : "ascending");
  });
  const rows = [...body.rows].map((row) => [value(row, column), row]);
  // what was not measured stands last either way
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b));
  body.append(...rows.map(([, row]) => row));
};
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    if ("plain" in header.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, column));
    header.append(button);
    header.setAttribute("aria-sort", "none");
  });
}
// from a number to the runs behind it
const runs = document.getElementById("runs-table").tBodies[0], said = document.getElementById("filter");
const show = (chosen, of) => {
  for (const row of runs.rows) row.hidden = chosen !== null && !chosen.has(row.id.slice(4));
  said.hidden = chosen === null;
  if (chosen === null) return;
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "Show all runs";
  all.addEventListener("click", () => show(null, ""));
  said.replaceChildren(`${chosen.size} ${chosen.size === 1 ? "run" : "runs"} behind \u201c${of}\u201d.`, all);
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-runs]");
  if (link) show(new Set(link.dataset.runs.split(" ")), link.dataset.of);
});
// downloads that work without the files beside the page
const sheets = JSON.parse(document.getElementById("sheets").textContent);
for (const link of document.querySelectorAll("a[data-file]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const name = link.dataset.file, type = name.endsWith(".json") ? "application/json" : "text/csv";
    const address = URL.createObjectURL(new Blob([sheets[name]], { type })), saved = document.createElement("a");
    saved.href = address;
    saved.download = name;
    saved.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
}
// where one is on the page
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(entry.target.id), bar = link.parentElement;
    link.setAttribute("aria-current", "true");
    bar.scrollTo({ left: link.offsetLeft - bar.clientWidth / 2 });
  }
}, { rootMargin: "-30% 0px -65% 0px" });
for (const name of links.keys()) seen.observe(document.getElementById(name));
})();
