"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const narrow = () => window.innerWidth < 700;
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const FONT = { family: "system-ui, sans-serif", size: 12 };

// Sort a table by the column whose head is clicked: numbers by data-value, texts by themselves; empty cells last.
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const number = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : number;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => number ? row.cells[column].dataset.value : row.cells[column].textContent;
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => a === b ? 0 : a === "" ? 1 : b === "" ? -1
        : (down ? -1 : 1) * (number ? a - b : a.localeCompare(b, undefined, { numeric: true })));
      body.append(...rows.map(([, row]) => row));
    });
  });
  if (table.dataset.down) heads[Number(table.dataset.down)].firstChild.click();
}

// Show the rows that have all of the words.
const filters = byId("filters");
if (filters) {
  filters.hidden = false;
  const rows = [...byId("layers").tBodies[0].rows].map((row) => [row.textContent.toLowerCase(), row]);
  const apply = () => {
    const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [content, row] of rows) {
      row.hidden = !words.every((word) => content.includes(word));
      shown += !row.hidden;
    }
    byId("count").textContent = `${shown} of ${rows.length} rows`;
  };
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(apply));
  apply();
}

function drawTiles() {
  const { tiles, colours } = data, kind = byId("tiles-kind").value;
  Plotly.react("tiles", [{
    type: kind, ids: tiles.ids, labels: tiles.labels.map(text), parents: tiles.parents, values: tiles.values,
    text: tiles.texts.map(text), branchvalues: "total", textinfo: "label+percent root",
    marker: { colors: tiles.kinds.map((name) => colours[name] || "#e8e8e8"), line: { width: 1, color: "#fff" } },
    hovertemplate: "<b>%{label}</b><br>%{value:.4g} us, %{percentRoot:.1%}<br>%{text}<extra></extra>",
    tiling: kind === "icicle" ? { orientation: "v" } : {}, pathbar: { visible: true }, maxdepth: kind === "icicle" && narrow() ? 4 : 6,
  }], { height: narrow() ? 420 : 520, margin: { l: 4, r: 4, t: 24, b: 4 }, font: FONT }, CONFIG);
}
if (data.tiles && data.tiles.ids.length > 1) {
  byId("tiles-section").hidden = false;
  if (narrow()) byId("tiles-kind").value = "treemap";
  byId("tiles-kind").addEventListener("change", drawTiles);
  drawTiles();
}

if (data.roofline && data.roofline.points.length) {
  byId("roofline-section").hidden = false;
  const { points, roofs, bandwidth } = data.roofline;
  const most = Math.max(...points.map((point) => point.us));
  const kinds = [...new Set(points.map((point) => point.kind))];
  const traces = kinds.map((kind) => {
    const own = points.filter((point) => point.kind === kind);
    return {
      type: "scatter", mode: "markers", name: kind, x: own.map((point) => point.x), y: own.map((point) => point.y),
      marker: { color: data.colours[kind], opacity: 0.7, size: own.map((point) => 5 + 25 * Math.sqrt(point.us / most)), line: { width: 1, color: "#fff" } },
      text: own.map((point) => `${text(point.name)}<br>${point.us} us, bound: ${point.bound}`),
      hovertemplate: "%{text}<br>%{x:.3g} FLOP/byte, %{y:.3g} TFLOP/s<extra></extra>",
    };
  });
  const xs = points.map((point) => point.x), ys = points.map((point) => point.y);
  const low = Math.min(...xs) / 2, top = Math.max(...roofs.map((roof) => roof.tflops), ...ys);
  const knee = bandwidth ? top / (bandwidth / 1000) : 0;
  const high = Math.max(2 * Math.max(...xs), 2 * knee);
  if (bandwidth) {
    traces.push({ type: "scatter", mode: "lines", name: `${bandwidth.toLocaleString("en")} GB/s`, x: [low, knee], y: [low * bandwidth / 1000, top],
      line: { color: "#444", width: 2 }, hoverinfo: "name" });
  }
  roofs.forEach((roof, number) => traces.push({
    type: "scatter", mode: "lines", name: `${roof.name} ${roof.tflops.toLocaleString("en")} TFLOP/s`,
    x: [bandwidth ? roof.tflops / (bandwidth / 1000) : low, high], y: [roof.tflops, roof.tflops],
    line: { color: "#444", width: 2, dash: ["dash", "dot", "dashdot"][number % 3] }, hoverinfo: "name",
  }));
  Plotly.newPlot("roofline", traces, {
    height: narrow() ? 440 : 520, font: FONT, margin: { l: 60, r: 10, t: 30, b: 50 }, template: "none",
    xaxis: { type: "log", title: { text: "FLOP per byte" }, gridcolor: "#eee", exponentformat: "power", dtick: 1 },
    yaxis: { type: "log", title: { text: "TFLOP/s" }, gridcolor: "#eee", exponentformat: "power", dtick: 1 },
    legend: narrow() ? { orientation: "h", y: -0.3 } : {},
  }, CONFIG);
  byId("roofline-note").textContent = data.roofline.source ? `Peaks: ${data.roofline.source}.` : "The peaks of this device are not known, so that there is no roof.";
}

if (data.waterfall) {
  const { names, a, b, steps, unit } = data.waterfall;
  byId("waterfall").hidden = false;
  const labels = [names[0], ...steps.map((step) => step.name), names[1]];
  const shown = (value) => (value > 0 ? "+" : "") + Number(value.toPrecision(3)).toLocaleString("en");
  Plotly.newPlot("waterfall", [{
    type: "waterfall", orientation: "h", measure: ["absolute", ...steps.map(() => "relative"), "total"],
    y: labels.map((name, number) => `${number}`), x: [a, ...steps.map((step) => step.us), b],
    text: [Number(a.toPrecision(4)).toLocaleString("en"), ...steps.map((step) => shown(step.us)), Number(b.toPrecision(4)).toLocaleString("en")],
    textposition: "auto", cliponaxis: false, connector: { line: { color: "#999", width: 1 } },
    increasing: { marker: { color: "#d55e00" } }, decreasing: { marker: { color: "#009e73" } }, totals: { marker: { color: "#0072b2" } },
    customdata: labels.map(text), hovertemplate: "%{customdata}: %{text} us<extra></extra>",
  }], {
    height: 90 + 34 * labels.length, margin: { l: narrow() ? 135 : 240, r: 30, t: 10, b: 50 }, font: FONT, template: "none", showlegend: false,
    xaxis: { title: { text: `us ${unit}` }, gridcolor: "#eee", rangemode: "tozero" },
    yaxis: { autorange: "reversed", type: "category", tickvals: labels.map((name, number) => `${number}`),
      ticktext: labels.map((name) => text(narrow() && name.length > 20 ? `${name.slice(0, 19)}…` : name)) },
  }, CONFIG);
}
