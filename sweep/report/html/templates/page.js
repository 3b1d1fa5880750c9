"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d", "#8c564b"]; // Okabe-Ito
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
  const VERDICTS = { ok: "circle", unstable: "circle-open", short: "diamond-open", overloaded: "triangle-up-open" };
  const FEW = 12; // curves that one chart tells apart
  const LIMIT = "#b00020";
  const html = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly reads some HTML
  const title = (text) => (text === "p999" ? "p99.9" : text);
  const axisTitle = (text) => ({ text, standoff: 12 });
  const percentOf = (figure, format) => (figure.percent ? ".4~%" : format);
  // Names of lines without the words that all of them have, such as the settings of their sweep.
  function shortNames(variants) {
    const words = variants.map((variant) => variant.label.split(" "));
    const isCommon = (word) => words.length > 1 && words.every((own) => own.includes(word));
    const names = words.map((own, n) => own.filter((word) => !isCommon(word)).join(" ") || variants[n].label);
    return { names, common: (words[0] || []).filter((word) => isCommon(word) && !word.includes("=")).join(" ") };
  }
  const isNarrow = () => byId("variants").closest(".scroll").clientWidth < 600;

  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"], displayModeBar: !isNarrow() };

  function option(select, value, text) {
    const item = document.createElement("option");
    item.value = value;
    item.textContent = text;
    select.append(item);
  }

  // The table: a click on a head sorts, words and choices filter. Charts draw the rows that are shown.
  const body = byId("variants").tBodies[0];
  const heads = [...byId("variants").tHead.rows[0].cells];
  const rows = [...body.rows];
  const cellValue = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const cellText = (row, column) => row.cells[column].firstChild ? row.cells[column].firstChild.textContent.trim() : "";
  const compareText = new Intl.Collator("en", { numeric: true }).compare;

  heads.forEach((head, column) => {
    if (head.dataset.kind === "axis") rows.forEach((row) => row.cells[column].classList.add("axis"));
    if (column === 0) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = head.dataset.kind === "axis" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? (first === "ascending" ? "descending" : "ascending") : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortRows(column, order === "ascending" ? 1 : -1, head.dataset.kind);
    });
  });

  function sortRows(column, sign, kind) {
    const isUnknown = (row) => (kind === "axis" ? cellText(row, column) === "-" : cellValue(row, column) === null);
    const sorted = [...rows].sort((a, b) => {
      if (isUnknown(a) || isUnknown(b)) return isUnknown(a) - isUnknown(b); // always last
      const order = kind === "axis" ? compareText(cellText(a, column), cellText(b, column)) : cellValue(a, column) - cellValue(b, column);
      return sign * order || a.dataset.row - b.dataset.row;
    });
    body.append(...sorted);
  }

  const selects = heads.map((head, column) => {
    const values = column && head.dataset.kind === "axis" ? [...new Set(rows.map((row) => cellText(row, column)))] : [];
    if (values.length < 2) return null;
    const label = document.createElement("label");
    const select = document.createElement("select");
    label.append(`${head.textContent} `, select);
    option(select, "", "all");
    values.sort(compareText).forEach((value) => option(select, `=${value}`, value));
    byId("selects").append(label);
    return select;
  });

  const filtered = () => rows.filter((row) => !row.hidden).map((row) => data.variants[row.dataset.row]);

  function filterRows() {
    const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = `${data.variants[row.dataset.row].label} ${row.textContent}`.toLowerCase();
      const isChosen = selects.every((select, column) => !select || !select.value || select.value === `=${cellText(row, column)}`);
      row.hidden = !(isChosen && words.every((word) => text.includes(word)));
    }
    const count = rows.filter((row) => !row.hidden).length;
    byId("count").textContent = count === rows.length ? `${count} variants` : `${count} of ${rows.length} variants`;
    draw();
  }

  // Curves.
  const curveFigure = data.figures.findIndex((figure) => figure.name === "capacity_samples_per_s");
  const merit = (variant) => [curveFigure < 0 ? 0 : variant.figures[curveFigure] || 0, variant.peak || 0];
  const byMerit = (a, b) => merit(b)[0] - merit(a)[0] || merit(b)[1] - merit(a)[1];

  function drawCurves() {
    const percentile = byId("percentile").value;
    let variants = filtered().filter((variant) => variant.points.some((point) => point[percentile] !== null));
    const total = variants.length;
    if (byId("which").value === "few" && total > FEW) {
      const best = new Set([...variants].sort(byMerit).slice(0, FEW));
      variants = variants.filter((variant) => best.has(variant));
    }
    const { names, common } = shortNames(variants);
    const traces = variants.map((variant, number) => curve(variant, names[number], percentile, number, null));
    if (byId("clients").checked) {
      variants.forEach((variant, number) => {
        const clients = variant.points[0].clients || [];
        clients.forEach((_, client) => traces.push(curve(variant, names[number], percentile, number, client)));
      });
    }
    const range = logRange(traces);
    const limits = data.slos.filter((slo) => slo.percentile === percentile);
    Plotly.react("curves", traces, {
      ...layout(names),
      title: { text: [common, variants.length < total ? `the best ${variants.length} of ${total} variants` : ""].filter(Boolean).map(html).join(isNarrow() ? "<br>" : ", "),
        font: { size: isNarrow() ? 12 : 13 } },
      xaxis: { title: axisTitle("achieved samples/s"), rangemode: "tozero", automargin: true },
      yaxis: { title: axisTitle(`${title(percentile)} latency, ms`), type: "log", range, tickvals: ticks(range), automargin: true },
      shapes: limits.filter((slo) => isWithin(slo.limit_ms, range)).map((slo) => ({
        type: "line", xref: "paper", x0: 0, x1: 1, y0: slo.limit_ms, y1: slo.limit_ms, line: { color: LIMIT, dash: "dot", width: 2 } })),
      annotations: limits.map((slo) => limitNote(slo, range)),
    }, CONFIG);
  }

  function curve(variant, name, percentile, number, client) {
    const points = variant.points.filter((point) => (client === null ? point : (point.clients || [])[client] || {})[percentile] != null);
    const own = points.map((point) => (client === null ? point : point.clients[client]));
    const colour = COLOURS[number % COLOURS.length];
    const bars = points.map((point) => (client === null && point.bars[percentile]) || [point[percentile], point[percentile]]);
    return {
      type: "scatter",
      mode: "lines+markers",
      name: html(client === null ? name : `${name}, client ${client + 1}`),
      text: html(variant.label),
      x: own.map((point) => point.x),
      y: own.map((point) => point[percentile]),
      line: { color: colour, dash: client === null ? DASHES[Math.floor(number / COLOURS.length) % DASHES.length] : "dot", width: client === null ? 2 : 1 },
      marker: client === null ? { symbol: points.map((point) => VERDICTS[point.verdict] || "circle"), size: 8 } : { symbol: "x-thin-open", size: 6 },
      error_y: { type: "data", symmetric: false, thickness: 1, visible: client === null,
        array: bars.map((ends, n) => ends[1] - points[n][percentile]), arrayminus: bars.map((ends, n) => points[n][percentile] - ends[0]) },
      customdata: points.map((point) => [point.offered, point.requests, point.verdict]),
      hovertemplate: "%{y:.4g} ms at %{x:,.0f} samples/s<br>offered %{customdata[0]:,.0f}, %{customdata[1]:,} requests, %{customdata[2]}<extra>%{text}</extra>",
    };
  }

  function logRange(traces) {
    const values = traces.flatMap((trace) => trace.y.flatMap((y, n) =>
      trace.error_y.visible ? [y, y - trace.error_y.arrayminus[n], y + trace.error_y.array[n]] : [y])).filter((value) => value > 0);
    return values.length ? [Math.log10(Math.min(...values) / 1.25), Math.log10(Math.max(...values) * 1.25)] : undefined;
  }

  function ticks(range) { // 1, 2, 5 of each decade; of many decades, 1 alone
    if (!range) return undefined;
    const steps = range[1] - range[0] > 3 ? [1] : [1, 2, 5];
    const decades = [];
    for (let decade = Math.floor(range[0]); decade <= range[1]; decade++) decades.push(decade);
    return decades.flatMap((decade) => steps.map((step) => Number((step * 10 ** decade).toPrecision(3))));
  }

  const isWithin = (limit, range) => !range || (range[0] <= Math.log10(limit) && Math.log10(limit) <= range[1]);

  function limitNote(slo, range) {
    const note = { xref: "paper", x: 1, xanchor: "right", yanchor: "bottom", showarrow: false, font: { color: LIMIT } };
    const text = `SLO ${title(slo.percentile)} <= ${slo.limit_ms} ms`.replace("<=", "≤");
    if (isWithin(slo.limit_ms, range)) return { ...note, text, y: Math.log10(slo.limit_ms) };
    const isAbove = Math.log10(slo.limit_ms) > range[1];
    return { ...note, yref: "paper", y: isAbove ? 1 : 0, text: isAbove ? `↑ ${text} (above this axis)` : `↓ ${text} (below this axis)` };
  }

  function layout(names) {
    const longest = Math.max(0, ...names.map((name) => name.length));
    const isBelow = isNarrow() || longest > 32 || names.length > 16;
    const perRow = Math.max(1, Math.floor((byId("variants").closest(".scroll").clientWidth - 40) / (7 * longest + 50)));
    const below = isBelow ? 24 * Math.ceil(names.length / perRow) : 0;
    return {
      template: "none", font: { family: "system-ui, sans-serif", size: 12, color: "#222" },
      height: Math.min(460 + below, 1400), margin: { l: 60, r: 20, t: 40, b: 50 }, hovermode: "closest", autosize: true,
      legend: isBelow ? { orientation: "h", x: 0, y: -0.15, yanchor: "top", entrywidth: 7 * longest, entrywidthmode: "pixels" } : {},
      showlegend: names.length <= 60,
    };
  }

  // Trade-offs: what no other variant of the same model beats in both figures.
  function drawFront() {
    const [x, y] = [byId("front-x"), byId("front-y")].map((select) => data.figures[select.value]);
    const [nx, ny] = [byId("front-x"), byId("front-y")].map((select) => Number(select.value));
    const axis = Number(byId("front-colour").value);
    const all = filtered().filter((variant) => variant.ok);
    const variants = all.filter((variant) => variant.figures[nx] !== null && variant.figures[ny] !== null);
    const models = new Map();
    variants.forEach((variant) => models.set(variant.model, [...(models.get(variant.model) || []), variant]));
    const fronts = [...models.values()].map((group) => front(group, nx, ny, x.better, y.better));
    const isFront = new Set(fronts.flat());
    const values = [...new Set(variants.map((variant) => variant.axes[axis]))].sort(compareText);
    const traces = fronts.map((group) => ({
      type: "scatter", mode: "lines", x: group.map((variant) => variant.figures[nx]), y: group.map((variant) => variant.figures[ny]),
      line: { color: "#777", width: 1, dash: "dot" }, hoverinfo: "skip", showlegend: false }));
    values.forEach((value, number) => {
      const group = variants.filter((variant) => variant.axes[axis] === value);
      traces.push({
        type: "scatter", mode: "markers", name: html(`${data.axes[axis]} ${value}`),
        x: group.map((variant) => variant.figures[nx]), y: group.map((variant) => variant.figures[ny]),
        text: group.map((variant) => html(variant.label)),
        marker: { color: COLOURS[number % COLOURS.length], symbol: SHAPES[Math.floor(number / COLOURS.length + number) % SHAPES.length],
          size: group.map((variant) => (isFront.has(variant) ? 12 : 7)), opacity: group.map((variant) => (isFront.has(variant) ? 1 : 0.45)),
          line: { width: group.map((variant) => (isFront.has(variant) ? 1.5 : 0)), color: "#222" } },
        hovertemplate: `%{text}<br>${html(x.title)} %{x:${percentOf(x, ",.4g")}}<br>${html(y.title)} %{y:${percentOf(y, ",.4g")}}<extra></extra>`,
      });
    });
    const scale = (figure, n) => {
      const known = variants.map((variant) => variant.figures[n]).filter((value) => value > 0);
      const isWide = known.length === variants.length && Math.max(...known) > 20 * Math.min(...known);
      return { title: axisTitle(`${html(figure.title)} (${figure.better} is better)${isWide ? ", log" : ""}`), tickformat: figure.percent ? ".3~%" : undefined, type: isWide ? "log" : "linear", automargin: true,
        tickvals: isWide ? ticks([Math.log10(Math.min(...known)), Math.log10(Math.max(...known))]) : undefined };
    };
    Plotly.react("front", traces, { ...layout(values.map((value) => `${data.axes[axis]} ${value}`)), xaxis: scale(x, nx), yaxis: scale(y, ny) }, CONFIG);
    const left = all.length - variants.length;
    byId("front-note").textContent = "Large outlined marks, joined by a dotted line, are the front: no other variant of the same model is better in both figures."
      + (left ? ` Not drawn: ${left} variant${left > 1 ? "s" : ""} of which one of the two is unknown (exact outputs have no dB).` : "");
  }

  function front(group, nx, ny, betterX, betterY) {
    const gain = (variant, n, better) => (better === "more" ? 1 : -1) * variant.figures[n];
    const sorted = [...group].sort((a, b) => gain(b, nx, betterX) - gain(a, nx, betterX) || gain(b, ny, betterY) - gain(a, ny, betterY));
    let best = -Infinity;
    return sorted.filter((variant) => {
      const isBetter = gain(variant, ny, betterY) > best;
      if (isBetter) best = gain(variant, ny, betterY);
      return isBetter;
    });
  }

  // Heat map: the best figure of each pair of values.
  function drawHeat() {
    const [nx, ny] = [Number(byId("heat-x").value), Number(byId("heat-y").value)];
    const nz = Number(byId("heat-z").value);
    const figure = data.figures[nz];
    const known = filtered().filter((variant) => variant.ok && variant.figures[nz] !== null);
    const model = data.axes[nx] === "model" || data.axes[ny] === "model" ? null : (known[0] || {}).model;
    const variants = known.filter((variant) => model === null || variant.model === model);
    const values = (n) => [...new Set(variants.map((variant) => variant.axes[n]))].sort(compareText);
    const [xs, ys] = [values(nx), values(ny)];
    const isBetter = (a, b) => (figure.better === "more" ? a > b : a < b);
    const best = ys.map((y) => xs.map((x) => variants.filter((variant) => variant.axes[nx] === x && variant.axes[ny] === y)
      .reduce((a, b) => (a === null || isBetter(b.figures[nz], a.figures[nz]) ? b : a), null)));
    const number = (value) => (figure.percent ? `${Number((100 * value).toPrecision(4))}%` : value >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3)).toString());
    Plotly.react("heat", [{
      type: "heatmap", x: xs.map(html), y: ys.map(html), colorscale: "Cividis", reversescale: figure.better === "less", xgap: 2, ygap: 2,
      z: best.map((row) => row.map((variant) => (variant ? variant.figures[nz] : null))),
      text: best.map((row) => row.map((variant) => (variant ? number(variant.figures[nz]) : ""))), texttemplate: "%{text}",
      customdata: best.map((row) => row.map((variant) => (variant ? html(variant.label) : ""))),
      hovertemplate: `%{customdata}<br>${html(figure.title)} %{z:${percentOf(figure, ",.4g")}}<extra></extra>`, hoverongaps: false,
      colorbar: { thickness: 12, tickformat: figure.percent ? ".3~%" : undefined, title: { text: html(figure.title), side: "right" } },
    }], { ...layout([]), height: Math.max(260, 130 + 44 * ys.length),
      xaxis: { title: axisTitle(html(data.axes[nx])), type: "category", automargin: true },
      yaxis: { title: axisTitle(html(data.axes[ny])), type: "category", autorange: "reversed", automargin: true } }, CONFIG);
    const others = new Set(known.map((variant) => variant.model)).size - 1;
    byId("heat-note").textContent = `Each cell is the best ${figure.title} of the variants that share its two values.`
      + (model !== null && others > 0 ? ` Only ${model}: filter another model above, since samples of different models are different work.` : "");
  }

  const charts = [];
  function addChart(section, drawing, controls) {
    byId(section).hidden = false;
    controls.forEach((id) => byId(id).addEventListener("change", drawing));
    charts.push(drawing);
  }

  let pending = 0;
  function draw() {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => charts.forEach((drawing) => drawing()));
  }

  if (byId("curves-section") && data.percentiles.length) {
    data.percentiles.forEach((name) => option(byId("percentile"), name, title(name)));
    const preferred = data.slos.length ? data.slos[0].percentile : "p99";
    byId("percentile").value = data.percentiles.includes(preferred) ? preferred : data.percentiles.at(-1);
    const total = data.variants.filter((variant) => variant.points.length).length;
    if (total > FEW) option(byId("which"), "few", `the best ${FEW} of those in the table`);
    option(byId("which"), "all", "all in the table");
    byId("clients-label").hidden = !data.variants.some((variant) => variant.points.some((point) => point.clients));
    addChart("curves-section", drawCurves, ["percentile", "which", "clients"]);
  }
  if (data.figures.length > 1) {
    data.figures.forEach((figure, number) => ["front-x", "front-y"].forEach((id) => option(byId(id), number, figure.title)));
    data.axes.forEach((axis, number) => option(byId("front-colour"), number, axis));
    // Figures that at least half of the variants have come first, of the front those that most have.
    const count = (number) => data.variants.filter((variant) => variant.ok && variant.figures[number] !== null).length;
    const most = Math.max(...data.figures.map((_, number) => count(number)));
    const place = (...names) => names.map((name) => data.figures.findIndex((figure) => figure.name === name))
      .find((number) => number >= 0 && 2 * count(number) >= most);
    const across = place("capacity_samples_per_s", "peak_samples_per_s") ?? 0;
    byId("front-x").value = across;
    const other = place("top1", "p99_at_80_percent_ms", "p99_light_ms", "sqnr_db", "gpu_compute_p50_ms", "p50_light_ms", "energy_mj_per_sample");
    byId("front-y").value = other ?? data.figures.findIndex((_, number) => number !== across);
    byId("front-colour").value = Math.max(0, data.axes.indexOf("precision"));
    addChart("front-section", drawFront, ["front-x", "front-y", "front-colour"]);
  }
  const wide = data.axes.map((_, number) => number).filter((number) => new Set(data.variants.map((variant) => variant.axes[number])).size > 1);
  if (wide.length > 1 && data.figures.length) {
    wide.forEach((number) => ["heat-x", "heat-y"].forEach((id) => option(byId(id), number, data.axes[number])));
    data.figures.forEach((figure, number) => option(byId("heat-z"), number, figure.title));
    const usual = ["batch", "precision", "streams"].map((name) => data.axes.indexOf(name)).filter((number) => wide.includes(number));
    const order = [...new Set([...usual, ...wide])];
    [byId("heat-x").value, byId("heat-y").value] = order;
    addChart("heat-section", drawHeat, ["heat-x", "heat-y", "heat-z"]);
  }

  byId("filters").hidden = false;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", filterRows);
  byId("filters").addEventListener("reset", () => setTimeout(filterRows));
  const resize = (width) => document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.relayout(plot, width ? { width, autosize: false } : { width: null, autosize: true }));
  window.addEventListener("beforeprint", () => resize(980));
  window.addEventListener("afterprint", () => resize(0));
  filterRows();
})();
