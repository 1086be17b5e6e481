// Charts drawn as SVG from the report's data. A chart is drawn anew whenever anything changes.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set(); // layers that are switched off

const numbers = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
function show(value) {
  if (value === null || value === undefined) return "";
  return value && Math.abs(value) < 1e-4 ? value.toExponential(1).replace(".0e", "e") : numbers.format(value);
}

function element(space, name, attributes, children) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children); // text stays text, whatever is in it
  return made;
}
const svg = (name, attributes = {}, ...children) =>
  element("http://www.w3.org/2000/svg", name, attributes, children);
const html = (name, attributes = {}, ...children) => element(null, name, attributes, children);

const pen = document.createElement("canvas").getContext("2d");
pen.font = "12px system-ui, sans-serif";
const widthOf = (text) => pen.measureText(text).width;
function fit(text, room) {
  if (widthOf(text) <= room) return text;
  let kept = text.length;
  while (kept > 3 && widthOf(text.slice(0, kept) + "…") > room) kept--;
  return text.slice(0, kept) + "…";
}

// --- scales ---

function scale(axis, log, values, from, to) {
  const places = axis.ticks ? axis.ticks.map((tick) => tick[0]) : [];
  const all = [...values, ...places].filter((value) => value !== null && (!log || value > 0));
  const [into, out] = log ? [Math.log10, (v) => 10 ** v] : [(v) => v, (v) => v];
  let low = into(Math.min(...all)), high = into(Math.max(...all));
  if (!all.length) [low, high] = [0, 1];
  const pad = high > low ? 0.05 * (high - low) : log ? 0.2 : Math.abs(low) * 0.5 || 1;
  // A linear axis that nearly reaches zero begins there.
  low = !log && low >= 0 && low < 0.4 * high ? 0 : low - pad;
  high += pad;
  const at = (value) => from + ((into(value) - low) / (high - low)) * (to - from);
  const ticks = axis.ticks || (log ? logTicks(low, high) : linearTicks(low, high)).map((v) => [v, show(v)]);
  return { at, ticks: ticks.filter(([v]) => (!log || v > 0) && into(v) >= low - 1e-9 && into(v) <= high + 1e-9), out };
}

function linearTicks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high + 1e-12; n++) ticks.push(+(n * step).toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  if (high - low < 0.7) return linearTicks(10 ** low, 10 ** high).filter((value) => value > 0);
  const every = Math.ceil((high - low) / 8), digits = high - low > 2.5 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power++) {
    if (power % every === 0) for (const digit of digits) ticks.push(+(digit * 10 ** power).toPrecision(12));
  }
  return ticks;
}

// Rising places, moved as little as it takes to be `room` apart and within the bounds.
function spread(wanted, room, low, high) {
  const runs = [];
  const begin = (run) => {
    const whole = room * run.length, middle = run.reduce((a, b) => a + b, 0) / run.length;
    return Math.max(low, Math.min(middle - whole / 2, high - whole));
  };
  for (const place of wanted) {
    runs.push([place]);
    while (runs.length > 1 && begin(runs.at(-2)) + room * runs.at(-2).length > begin(runs.at(-1))) {
      const last = runs.pop();
      runs.at(-1).push(...last);
    }
  }
  return runs.flatMap((run) => run.map((_, n) => begin(run) + room * (n + 0.5)));
}

// --- marks ---

const SHAPES = {
  s: "M-4-4H4V4H-4Z", "^": "M0-5L5 4H-5Z", D: "M0-5.5L5.5 0L0 5.5L-5.5 0Z", v: "M0 5L5-4H-5Z",
  P: "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z",
  X: "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0Z",
  o: "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z", _: "M-5-1H5V1H-5Z",
};
const lookOf = (layer) => (layer === null ? { marker: "_", dash: [1.5, 1.5], number: "reference" } : data.looks[layer]);
function marker(look, x, y, size = 1) {
  return svg("path", { class: "marker", d: SHAPES[look.marker], transform: `translate(${x} ${y}) scale(${size})` });
}
function swatch(layer) {
  const look = lookOf(layer);
  return svg("svg", { class: `swatch own-${look.number}`, width: 26, height: 12, viewBox: "0 0 26 12", "aria-hidden": "true" },
    svg("path", { class: "line", d: "M0 6H26", "stroke-dasharray": look.dash.map((v) => v * 1.5).join(" ") }),
    marker(look, 13, 6, 0.9));
}

// --- the three kinds of charts ---

// Each draws into a new <svg> and gives the points that can be pointed at: x, y, group, lines of text.
const DRAW = {
  lines(chart, panel, state, width) {
    const series = panel.series.filter((one) => one.layer === null || !hidden.has(one.layer));
    const named = series.filter((one) => one.curve === 0);
    const longest = Math.max(...named.map((one) => widthOf(one.name)), 20) + 34;
    const below = longest > 0.36 * width; // there is no room beside the lines
    const right = below ? 40 : longest;
    const upper = Math.max(width < 500 ? 320 : 380, below ? 0 : named.length * 16 + 90);
    const [legend, lines] = below ? seriesLegend(named, series, width, upper) : [null, 0];
    const height = upper + (lines ? lines * 20 + 8 : 0);
    const box = { left: 54, right: width - right, top: 30, bottom: upper - 46 };
    const values = (key) => series.flatMap((one) => [...one[key], ...(key === "y" ? [...(one.low || []), ...(one.high || [])] : [])]);
    const x = scale(chart.x, state.logx, values("x"), box.left + 6, box.right);
    const y = scale(chart.y, state.logy, values("y"), box.bottom, box.top);
    const root = frame(chart, width, height, box, x, y);
    const points = [];
    series.forEach((one, number) => {
      const look = lookOf(one.layer);
      const group = svg("g", { class: `series own-${look.number}`, "data-group": number });
      const shown = one.x.map((_, n) => n).filter((n) => (!state.logx || one.x[n] > 0) && (!state.logy || one.y[n] > 0));
      const aside = chart.apart ? 18 * ((number + 0.5) / series.length - 0.5) : 0;
      const places = shown.map((n) => [x.at(one.x[n]) + aside, y.at(one.y[n])]);
      const path = places.map(([px, py], n) => (n === 0 ? `M${px} ${py}` : one.step ? `H${px}V${py}` : `L${px} ${py}`)).join("");
      if (places.length > 1) group.append(svg("path", { class: "line", d: path, "stroke-dasharray": look.dash.map((v) => v * 1.8).join(" ") }));
      shown.forEach((n, place) => {
        const [px, py] = places[place], low = one.low && one.low[n], high = one.high && one.high[n];
        if (low !== null && high !== null && one.low && (!state.logy || low > 0)) {
          group.append(svg("path", { class: "error", d: `M${px} ${y.at(low)}V${y.at(high)}M${px - 3} ${y.at(low)}h6M${px - 3} ${y.at(high)}h6` }));
        }
        if (one.markers) group.append(marker(look, px, py, one.x.length > 12 ? 0.7 : 1));
        const tick = chart.x.ticks && chart.x.ticks.find((tick) => tick[0] === one.x[n]);
        points.push({ x: px, y: py, group: number, text: [one.name,
          `${chart.y.title}: ${show(one.y[n])}` + (one.low && low !== null ? ` (95 %: ${show(low)} to ${show(high)})` : ""),
          `${chart.x.title}: ${tick ? tick[1].replace("\n", ", ") : show(one.x[n])}`] });
      });
      root.append(group);
    });
    for (const [rx, ry, text] of panel.rings) {
      const layer = series.some((one) => one.layer && text.startsWith(one.layer + " "));
      if (!layer) continue;
      root.append(svg("circle", { class: "ring", cx: x.at(rx), cy: y.at(ry), r: 8 }));
      points.push({ x: x.at(rx), y: y.at(ry), group: -1, text: [text] });
    }
    if (below) root.append(legend);
    else labelEnds(root, named, series, x, y, state, box, right);
    return { root, points };
  },

  dots(chart, panel, state, width) {
    const rows = panel.rows.filter((row) => !hidden.has(row.layer));
    const { left, step, name } = rowLayout(rows, width, 84);
    const height = rows.length * step + 84;
    const box = { left, right: width - 70, top: 36, bottom: height - 46 };
    const values = [...rows.flatMap((row) => [row.values[0], row.low, row.high]), ...panel.references.map((one) => one[1])];
    const x = scale(chart.x, state.logx, values.filter((value) => value !== null), box.left + 10, box.right);
    const root = frame({ x: chart.x, y: null }, width, height, box, x, null);
    const points = [];
    for (const [name, value] of panel.references) {
      root.append(svg("g", { class: "series own-reference" }, svg("path", { class: "line", "stroke-dasharray": "2 3", d: `M${x.at(value)} ${box.top}V${box.bottom}` })));
      const near = x.at(value) > width - 0.5 * widthOf(name) - 20;
      root.append(svg("text", { class: "note", x: x.at(value), y: box.top - 6, "text-anchor": near ? "end" : "middle" }, `${name} ${show(value)}`));
      points.push({ x: x.at(value), y: box.top, group: -1, text: [name, `${chart.x.title}: ${show(value)}`] });
    }
    rows.forEach((row, number) => {
      const py = box.top + (number + 0.5) * step, look = lookOf(row.layer), px = x.at(row.values[0]);
      const group = svg("g", { class: `series own-${look.number}`, "data-group": number });
      group.append(svg("path", { class: "grid", d: `M${box.left} ${py}H${box.right}` }));
      if (row.low !== null && row.high !== null) {
        const [from, to] = [x.at(row.low), x.at(row.high)];
        group.append(svg("path", { class: "error", d: `M${from} ${py}H${to}M${from} ${py - 4}v8M${to} ${py - 4}v8` }));
      }
      group.append(marker(look, px, py, 1.2));
      group.append(name(row.layer, py, 14));
      const beyond = row.high === null ? px : Math.max(px, x.at(row.high));
      group.append(svg("text", { class: "name", x: beyond + 11, y: py + 4 }, show(row.values[0])));
      root.append(group);
      points.push({ x: px, y: py, group: number, text: [row.layer, `${chart.x.title}: ${show(row.values[0])}` +
        (row.low === null ? "" : ` (95 %: ${show(row.low)} to ${show(row.high)})`)] });
    });
    return { root, points };
  },

  stack(chart, panel, state, width) {
    const rows = panel.rows.filter((row) => !hidden.has(row.layer));
    const total = (row) => row.values.reduce((a, b) => a + b, 0);
    const [legend, lines] = partLegend(chart, width);
    const { left, step, name, above } = rowLayout(rows, width, 66 + lines * 20);
    const height = rows.length * step + 66 + lines * 20, thick = step - 7 - above;
    const box = { left, right: width - 74, top: 20 + lines * 20, bottom: height - 46 };
    const most = state.absolute ? Math.max(...rows.map(total)) : 100;
    const axis = { title: state.absolute ? `[${chart.unit}]` : "share [%]" };
    const x = scale(axis, false, [0, most / 1.0001], box.left, box.right);
    const root = frame({ x: axis, y: null }, width, height, box, x, null);
    root.append(legend);
    const points = [];
    rows.forEach((row, number) => {
      const top = box.top + number * step + 3 + above, whole = total(row);
      const group = svg("g", { class: "series", "data-group": number });
      let sum = 0;
      row.values.forEach((value, part) => {
        const factor = state.absolute ? 1 : 100 / whole;
        const from = x.at(sum * factor), to = x.at((sum + value) * factor);
        sum += value;
        group.append(svg("rect", { class: `part-${part}`, x: from, y: top, width: Math.max(0, to - from - 0.7), height: thick }));
        points.push({ x: (from + to) / 2, y: top + thick / 2, group: number, text: [row.layer,
          `${chart.parts[part]}: ${show(value)} ${chart.unit}, ${numbers.format(+((100 * value) / whole).toFixed(1))} %`,
          `all: ${show(whole)} ${chart.unit}`] });
      });
      group.append(name(row.layer, top + thick / 2, thick / 2));
      group.append(svg("text", { class: "name", x: x.at(state.absolute ? whole : 100) + 6, y: top + thick / 2 + 4 }, `${show(whole)} ${chart.unit}`));
      root.append(group);
    });
    return { root, points };
  },
};

// How rows are laid out: names to the left where there is room, else above; as high as other charts.
function rowLayout(rows, width, around) {
  const longest = Math.max(...rows.map((row) => widthOf(row.layer)), 20) + 16;
  const above = longest > 0.42 * width ? 16 : 0, left = above ? 8 : longest;
  const step = above ? 44 : Math.min(52, Math.max(28, (380 - around) / rows.length));
  const name = (layer, middle, half) => above
    ? svg("text", { class: "name", x: left, y: middle - half - 4 }, fit(layer, width - left - 4))
    : svg("text", { class: "name", x: left - 8, y: middle + 4, "text-anchor": "end" }, layer);
  return { left, step, name, above };
}

function seriesLegend(named, series, width, top) {
  const group = svg("g", {});
  let px = 4, line = 0;
  for (const one of named) {
    const name = fit(one.name, width - 40), look = lookOf(one.layer);
    if (px + widthOf(name) + 30 > width && px > 4) { px = 4; line++; }
    group.append(svg("g", { class: `series own-${look.number}`, "data-group": series.indexOf(one) },
      marker(look, px + 6, top + 10 + line * 20, 0.8), svg("text", { class: "name", x: px + 16, y: top + 14 + line * 20 }, name)));
    px += widthOf(name) + 34;
  }
  return [group, line + 1];
}

function partLegend(chart, width) {
  const group = svg("g", {});
  let px = 4, line = 0;
  chart.parts.forEach((name, part) => {
    if (px + widthOf(name) + 30 > width && px > 4) { px = 4; line++; }
    group.append(svg("rect", { class: `part-${part}`, x: px, y: 4 + line * 20, width: 12, height: 12 }));
    group.append(svg("text", { class: "name", x: px + 17, y: 14 + line * 20 }, name));
    px += widthOf(name) + 34;
  });
  return [group, line + 1];
}

function frame(chart, width, height, box, x, y) {
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  let last = -Infinity;
  for (const [value, name] of x.ticks) {
    const px = x.at(value), lines = name.split("\n");
    root.append(svg("path", { class: "grid", d: `M${px} ${box.top}V${box.bottom}` }));
    const room = Math.max(...lines.map(widthOf)) + 10;
    if (px - room / 2 < last) continue; // no two names overlap
    last = px + room / 2;
    lines.forEach((line, n) => root.append(svg("text", { class: "tick", x: px, y: box.bottom + 16 + n * 12, "text-anchor": "middle" }, line)));
  }
  for (const [value, name] of y ? y.ticks : []) {
    root.append(svg("path", { class: "grid", d: `M${box.left} ${y.at(value)}H${box.right}` }));
    root.append(svg("text", { class: "tick", x: box.left - 6, y: y.at(value) + 4, "text-anchor": "end" }, name));
  }
  const low = x.ticks.some((tick) => tick[1].includes("\n")) ? 42 : 36;
  const under = fit(`${chart.x.title} →`, width - 8);
  root.append(svg("text", { class: "title", x: Math.max(box.right, widthOf(under) + 4), y: box.bottom + low, "text-anchor": "end" }, under));
  if (y) root.append(svg("text", { class: "title", x: 4, y: 14 }, `↑ ${chart.y.title}`));
  return root;
}

function labelEnds(root, named, series, x, y, state, box, right) {
  const ends = named
    .map((one) => [one, one.x.length - 1])
    .filter(([one, n]) => n >= 0 && (!state.logy || one.y[n] > 0))
    .map(([one, n]) => ({ one, x: x.at(one.x[n]), y: y.at(one.y[n]) }))
    .sort((a, b) => a.y - b.y);
  const heights = spread(ends.map((end) => end.y), 16, 16, box.bottom + 30);
  ends.forEach((end, n) => {
    const look = lookOf(end.one.layer), at = heights[n];
    root.append(svg("g", { class: `series own-${look.number}`, "data-group": series.indexOf(end.one) },
      svg("path", { class: "leader", d: `M${end.x + 6} ${end.y}L${box.right + 8} ${at}` }),
      marker(look, box.right + 14, at, 0.8),
      svg("text", { class: "name", x: box.right + 23, y: at + 4 }, fit(end.one.name, right - 25))));
  });
}
