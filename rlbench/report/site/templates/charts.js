// Figures as inline SVG and HTML; the colours come from the style sheet and the data.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const MARKS = ["circle", "square", "diamond", "triangle", "down", "cross"];

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const percent = (share) => (100 * share).toFixed(1);
const interval = (score) => `${percent(score.lo)}–${percent(score.hi)}`;

function mark(kind, x, y, colour, title) {
  const r = 5;
  const shapes = {
    square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    diamond: `M${x},${y - r - 1}L${x + r + 1},${y}L${x},${y + r + 1}L${x - r - 1},${y}z`,
    triangle: `M${x},${y - r}L${x + r},${y + r}L${x - r},${y + r}z`,
    down: `M${x},${y + r}L${x + r},${y - r}L${x - r},${y - r}z`,
    cross: `M${x - r},${y - 2}h3v-3h4v3h3v4h-3v3h-4v-3h-3z`,
  };
  const shape = kind === "circle" ? svg("circle", { cx: x, cy: y, r }) : svg("path", { d: shapes[kind] });
  shape.setAttribute("fill", colour);
  shape.setAttribute("class", "mark");
  const label = svg("title");
  label.textContent = title;
  shape.append(label);
  return shape;
}

function ticks(low, high) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 4, 5, 10, 20, 50].find((s) => (high - low) / s <= 6) || 100;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) found.push(+(k * step).toFixed(6));
  return found;
}

// A frame with axes, and functions from values to pixels.
function frame({ place, xs, ys, xLabel, yLabel, label, names = {} }) {
  const W = Math.max(280, Math.min(560, place.clientWidth)), H = Math.round(0.64 * W);
  const [left, right, top, bottom] = [48, 14, 12, 44];
  const x = (v) => left + ((v - xs[0]) / (xs[1] - xs[0] || 1)) * (W - left - right);
  const y = (v) => H - bottom - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (H - top - bottom);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  const text = (at, words, extra) => {
    const node = svg("text", { ...at, ...extra });
    node.textContent = words;
    root.append(node);
  };
  for (const v of ticks(...ys)) {
    root.append(svg("line", { x1: left, x2: W - right, y1: y(v), y2: y(v), class: "grid" }));
    text({ x: left - 8, y: y(v) + 4 }, Math.round(100 * v), { "text-anchor": "end" });
  }
  const named = Object.keys(names).map(Number);
  for (const v of named.length ? named : ticks(...xs)) {
    root.append(svg("line", { x1: x(v), x2: x(v), y1: top, y2: H - bottom, class: "grid" }));
    text({ x: x(v), y: H - bottom + 18 }, names[v] ?? (xLabel.includes("%") ? Math.round(100 * v) : v), { "text-anchor": v === xs[1] && names[v] ? "end" : "middle" });
  }
  text({ x: (left + W - right) / 2, y: H - 6 }, xLabel, { "text-anchor": "middle", class: "axis" });
  text({ x: 0, y: 0, transform: `translate(12 ${(top + H - bottom) / 2}) rotate(-90)` }, yLabel, { "text-anchor": "middle", class: "axis" });
  return { root, x, y };
}

function legend(models, colours, draw, hidden) {
  return el("div", { class: "models" }, ...models.map((model) => el("button", {
    type: "button", style: `--c:${colours(model)}`, "aria-pressed": String(!hidden.has(model)), title: "show or hide",
    onclick: () => { hidden.has(model) ? hidden.delete(model) : hidden.add(model); draw(); },
  }, el("i"), model)));
}

function drawCurves(place, spec, colours, hidden = new Set()) {
  const models = Object.keys(spec.models);
  const most = Math.max(...Object.values(spec.models).flat().map((p) => p.x));
  const { root, x, y } = frame({ place, xs: [0, most], ys: [0, 1], xLabel: spec.unit, yLabel: "accuracy, %", label: `Accuracy against ${spec.unit}, ${spec.what}`, names: spec.names });
  models.forEach((model, k) => {
    if (hidden.has(model)) return;
    const points = spec.models[model], colour = colours(model);
    const band = [...points.map((p) => [p.x, p.hi]), ...points.toReversed().map((p) => [p.x, p.lo])];
    root.append(svg("polygon", { points: band.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), fill: colour, class: "band" }));
    root.append(svg("polyline", { points: points.map((p) => `${x(p.x)},${y(p.v)}`).join(" "), stroke: colour, class: "line" }));
    for (const p of points) root.append(mark(MARKS[k % MARKS.length], x(p.x), y(p.v), colour, `${model}, ${spec.names[p.x] ?? `eps ${p.x}`}: ${percent(p.v)} [${interval(p)}]`));
  });
  place.replaceChildren(root, legend(models, colours, () => drawCurves(place, spec, colours, hidden), hidden));
}

function drawScatter(place, spec, colours, hidden = new Set()) {
  const models = Object.keys(spec.models);
  const all = Object.values(spec.models);
  const range = (k) => [Math.max(0, Math.floor(Math.min(...all.map((s) => s[k].lo)) * 10) / 10), Math.min(1, Math.ceil(Math.max(...all.map((s) => s[k].hi)) * 10) / 10)];
  const { root, x, y } = frame({ place, xs: range(0), ys: range(1), xLabel: "clean, %", yLabel: `${spec.column}, %`, label: `Clean accuracy against ${spec.column}` });
  models.forEach((model, k) => {
    if (hidden.has(model)) return;
    const [a, b] = spec.models[model], colour = colours(model);
    root.append(svg("line", { x1: x(a.lo), x2: x(a.hi), y1: y(b.v), y2: y(b.v), stroke: colour, class: "bar" }));
    root.append(svg("line", { x1: x(a.v), x2: x(a.v), y1: y(b.lo), y2: y(b.hi), stroke: colour, class: "bar" }));
    root.append(mark(MARKS[k % MARKS.length], x(a.v), y(b.v), colour, `${model}: clean ${percent(a.v)} [${interval(a)}], ${spec.column} ${percent(b.v)} [${interval(b)}]`));
  });
  place.replaceChildren(root, legend(models, colours, () => drawScatter(place, spec, colours, hidden), hidden));
}

// Accuracy of one model by severity, or of all models (model "") as the mean over severities.
function drawHeat(place, heat, model) {
  const all = model === "", names = Object.keys(heat), mean = (v) => v.reduce((a, b) => a + b, 0) / v.length;
  const corruptions = Object.keys(heat[all ? names[0] : model]);
  const head = all ? names : ["severity 1", "2", "3", "4", "5"];
  const row = (corruption) => (all ? names.map((name) => mean(heat[name][corruption])) : heat[model][corruption]);
  place.replaceChildren(el("table", { class: "heat" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "corruption"), ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...corruptions.map((corruption) => el("tr", {}, el("th", { scope: "row" }, corruption.replaceAll("_", " ")),
      ...row(corruption).map((v) => el("td", { style: `--v:${v.toFixed(3)}` }, percent(v))))))));
}
