// What the reader can do: theme, layers, vocabulary size, axes, pointing, downloads, sorting.

const root = document.documentElement;

// --- theme ---

const themes = ["auto", "light", "dark"];
function setTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  document.getElementById("theme").textContent = `theme: ${theme}`;
}
function storedTheme(theme) {
  try { // a page from a file may have no storage
    if (theme) localStorage.setItem("softmax-bench-theme", theme);
    return localStorage.getItem("softmax-bench-theme");
  } catch { return null; }
}
let theme = themes.includes(storedTheme()) ? storedTheme() : "auto";
setTheme(theme);
document.getElementById("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  storedTheme(theme);
  setTheme(theme);
});

// --- charts ---

const drawn = [], figures = document.querySelectorAll("figure");
let paper = null; // width of the plots in print, where it is not the window's

function build(figure) {
  const chart = data.charts.find((one) => one.name === figure.id);
  const first = chart.kind === "lines" ? { logx: chart.x.log, logy: chart.y.log } : { logx: chart.kind === "dots" && chart.x.log, logy: false };
  const state = { ...first, absolute: false, panel: chart.panels.length - 1, at: null };
  const plot = figure.querySelector(".plot");
  const tip = html("div", { class: "tip", role: "status", hidden: true });
  let points = [], width = 0;

  function draw() {
    width = paper || plot.clientWidth || width;
    if (!width) return;
    const made = DRAW[chart.kind](chart, chart.panels[state.panel], state, width);
    points = made.points;
    plot.replaceChildren(made.root, tip);
    point(null);
  }
  function point(which) {
    state.at = which;
    tip.hidden = which === null;
    for (const group of plot.querySelectorAll("[data-group]")) {
      group.classList.toggle("dim", which !== null && points[which].group >= 0 && +group.dataset.group !== points[which].group);
    }
    plot.querySelector(".here")?.remove();
    if (which === null) return;
    const { x, y, text } = points[which];
    plot.querySelector("svg").append(svg("circle", { class: "here", cx: x, cy: y, r: 7 }));
    tip.replaceChildren(html("strong", {}, text[0]), ...text.slice(1).map((line) => html("div", {}, line)));
    tip.style.left = `${Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 2))}px`;
    tip.style.top = `${y + 14}px`;
  }
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const far = points.map((one) => Math.hypot(one.x - px, one.y - py));
    const nearest = far.indexOf(Math.min(...far));
    const which = far[nearest] < 60 ? nearest : null;
    if (which !== state.at) point(which);
  });
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") point(null);
    if (!step || !points.length) return;
    event.preventDefault();
    point(state.at === null ? 0 : (state.at + step + points.length) % points.length);
  });

  // Controls
  const controls = figure.querySelector(".controls");
  const toggle = (name, get, set) => {
    const button = html("button", { type: "button", "aria-pressed": String(get()), click: () => {
      set(!get());
      button.setAttribute("aria-pressed", String(get()));
      draw();
    } }, name);
    controls.append(button);
  };
  if (chart.panels.length > 1) {
    const panels = html("select", { "aria-label": `Panel of ${chart.title}`, change: () => showPanel(panels.selectedIndex, true) },
      ...chart.panels.map((panel, n) => html("option", { selected: n === state.panel }, panel.title)));
    controls.append(panels);
    const showPanel = (number, everywhere) => {
      state.panel = panels.selectedIndex = number;
      draw();
      const size = chart.panels[number].size; // what all charts that have it go to
      if (everywhere && size !== null) for (const other of figures) other.dispatchEvent(new CustomEvent("size", { detail: size }));
    };
    figure.addEventListener("size", (event) => {
      const found = chart.panels.findIndex((panel) => panel.size === event.detail);
      if (found >= 0 && found !== state.panel) showPanel(found, false);
    });
  }
  const positive = (key) => chart.panels.every((panel) => panel.series.every((one) => one[key].every((value) => value > 0)));
  if (chart.kind === "lines") {
    if (positive("x") && !(chart.x.ticks && !chart.x.log)) toggle("log x", () => state.logx, (on) => (state.logx = on));
    if (positive("y")) toggle("log y", () => state.logy, (on) => (state.logy = on));
  } else if (chart.kind === "dots") toggle("log", () => state.logx, (on) => (state.logx = on));
  else toggle(`in ${chart.unit}`, () => state.absolute, (on) => (state.absolute = on));
  const table = html("div", { class: "scroll data", hidden: true });
  const open = html("button", { type: "button", "aria-expanded": "false", click: () => {
    table.hidden = !table.hidden;
    open.setAttribute("aria-expanded", String(!table.hidden));
    if (!table.firstChild) table.append(dataTable(chart.data));
  } }, "numbers");
  controls.append(open, ...["csv", "svg", "png"].map((kind) =>
    html("button", { type: "button", "aria-label": `Download ${chart.title} as ${kind.toUpperCase()}`, click: () => save(chart, plot, kind) }, kind.toUpperCase())));
  figure.append(table);
  new ResizeObserver(() => { if (!paper && plot.clientWidth !== width) draw(); }).observe(plot);
  draw();
  drawn.push(draw);
}

function dataTable({ columns, rows }) {
  return html("table", {},
    html("thead", {}, html("tr", {}, ...columns.map((name) => html("th", { scope: "col" }, name)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell) =>
      html("td", typeof cell === "string" ? { class: "text" } : {}, typeof cell === "number" ? show(cell) : cell ?? ""))))));
}

// --- downloads ---

function csv({ columns, rows }) {
  const cell = (value) => /[",\n\r]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? "");
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}
function download(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function save(chart, plot, kind) {
  if (kind === "csv") return download(`${chart.name}.csv`, new Blob([csv(chart.data)], { type: "text/csv" }));
  const shown = plot.querySelector("svg"), copy = shown.cloneNode(true);
  const styled = ["fill", "stroke", "stroke-width", "opacity", "font-family", "font-size", "font-weight"];
  const targets = copy.querySelectorAll("*");
  shown.querySelectorAll("*").forEach((one, n) => {
    const style = getComputedStyle(one);
    for (const name of styled) targets[n].setAttribute(name, style.getPropertyValue(name));
  });
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: getComputedStyle(plot).backgroundColor }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const blob = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  if (kind === "svg") return download(`${chart.name}.svg`, blob);
  const image = new Image(), address = URL.createObjectURL(blob);
  image.onload = () => {
    const canvas = html("canvas", { width: 2 * image.width, height: 2 * image.height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(address);
    canvas.toBlob((png) => download(`${chart.name}.png`, png));
  };
  image.src = address;
}

// --- layers ---

const chips = document.getElementById("chips");
function refresh() {
  for (const chip of chips.querySelectorAll("[data-layer]")) chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.layer)));
  for (const draw of drawn) draw();
  filterRows();
}
for (const layer of Object.keys(data.looks)) {
  chips.append(html("button", { type: "button", class: "chip", "data-layer": layer, title: `${layer} (double click to show only this layer and full)`,
    click: () => { if (!hidden.delete(layer)) hidden.add(layer); refresh(); },
    dblclick: () => {
      for (const other of Object.keys(data.looks)) if (other !== layer && other !== "full") hidden.add(other);
      hidden.delete(layer); hidden.delete("full");
      refresh();
    } }, swatch(layer), html("span", {}, layer)));
}
chips.append(html("button", { type: "button", click: () => { hidden.clear(); refresh(); } }, "all"));
// On a telephone, or with many layers, it would hide the plots.
document.getElementById("toolbar").open = innerWidth > 700 && Object.keys(data.looks).length <= data.most_named;

// --- the table ---

const table = document.getElementById("results"), body = table.tBodies[0];
const search = document.getElementById("search"), size = document.getElementById("size"), wide = document.getElementById("wide");
function filterRows() {
  const wanted = search.value.trim().toLowerCase();
  let count = 0;
  for (const row of body.rows) {
    row.hidden = hidden.has(row.dataset.layer) || (size.value !== "" && row.dataset.size !== size.value) || !row.dataset.layer.toLowerCase().includes(wanted);
    count += !row.hidden;
  }
  document.getElementById("count").textContent = `${count} of ${body.rows.length} rows`;
}
search.addEventListener("input", filterRows);
size.addEventListener("change", filterRows);
wide.addEventListener("change", () => table.classList.toggle("wide", wide.checked));
table.tHead.addEventListener("click", (event) => {
  const head = event.target.closest("th");
  if (!head) return;
  const falling = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const column = head.cellIndex, key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const number = (text) => (text === "" ? NaN : Number(text));
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)], [m, n] = [number(a), number(b)];
    if (a === "" || b === "") return (a === "") - (b === ""); // what was not measured is last
    const order = Number.isNaN(m) || Number.isNaN(n) ? a.localeCompare(b) : m - n;
    return falling ? -order : order;
  });
  body.append(...rows);
  table.classList.add("sorted");
});
document.getElementById("save-table").addEventListener("click", () => download("table.csv", new Blob([csv(data.table)], { type: "text/csv" })));

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent); } catch { return; }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
}

for (const figure of figures) build(figure);
addEventListener("beforeprint", () => { paper = 640; for (const draw of drawn) draw(); });
addEventListener("afterprint", () => { paper = null; for (const draw of drawn) draw(); });
filterRows();
