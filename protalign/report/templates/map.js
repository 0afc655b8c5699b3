// The interactive map: pointing at a protein shows its nearest points of the other modality.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const plot = document.getElementById("map");
  const panel = document.getElementById("map-panel");
  const search = document.getElementById("map-search");
  const message = document.getElementById("map-message");
  const other = { sequence: "structure", structure: "sequence" };
  const colour = { sequence: "#0072B2", structure: "#D55E00" };
  const symbol = { sequence: "circle", structure: "triangle-up" };
  const LINES = 0, FAMILY = 1, CHOSEN = 2, FIRST_POINTS = 3;
  const modalities = ["sequence", "structure"];
  let pinned = null;

  // Plotly reads tags and entities in its labels; an id must appear as it is.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const points = (modality) => ({
    type: "scatter",
    mode: "markers",
    name: modality + "s",
    x: data[modality].x,
    y: data[modality].y,
    text: data.ids.map((id, i) => `${plain(id)} · ${modality}<br>family ${plain(data.families[i])}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      color: colour[modality], symbol: symbol[modality], size: 9,
      line: { color: "#fff", width: 0.7 },
    },
  });
  const marks = (size, line, width) => ({
    type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip", showlegend: false,
    marker: { size, color: "rgba(0,0,0,0)", line: { color: line, width } },
  });
  const lines = {
    type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip", showlegend: false,
    line: { color: "#5b6270", width: 1 },
  };
  const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "" };
  const layout = {
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    font: { family: "system-ui, sans-serif", size: 14, color: "#22262e" },
    legend: { orientation: "h", x: 0, y: 1.06 },
    hovermode: "closest", dragmode: "pan",
    xaxis: { ...axis }, yaxis: { ...axis },
  };
  // The buttons are named one by one: Plotly's own choice has one that uploads to its server.
  const config = {
    responsive: true, displaylogo: false, scrollZoom: false,
    showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const describe = (modality, i) => {
    const from = data[modality];
    const facts = element("p", undefined, "facts");
    facts.append(
      element("span", modality, `tag ${modality}`),
      ` family ${data.families[i]} · ${data.lengths[i]} residues · own ${other[modality]} ranks `,
      element("b", String(from.rank[i])),
    );
    const list = element("ol");
    from.near[i].forEach((j, order) => {
      const go = element("button", data.ids[j]);
      go.type = "button";
      go.title = `Show the ${other[modality]} of ${data.ids[j]}`;
      go.addEventListener("click", () => {
        pin(other[modality], j);
        panel.focus(); // the button that had the focus is gone
      });
      const item = element("li");
      item.append(go, element("span", from.cosine[i][order].toFixed(3), "cosine"));
      if (from.own[i][order]) item.append(element("span", "its own", "own"));
      else if (data.families[j] === data.families[i]) item.append(element("span", "same family", "kin"));
      list.append(item);
    });
    panel.replaceChildren(
      element("h3", data.ids[i]), facts,
      element("p", `Nearest ${other[modality]}s, by cosine`, "list-title"), list,
    );
  };

  const show = (modality, i) => {
    describe(modality, i);
    const from = [data[modality].x[i], data[modality].y[i]];
    const goal = data[other[modality]];
    const x = [], y = [];
    for (const j of data[modality].near[i]) {
      x.push(from[0], goal.x[j], null);
      y.push(from[1], goal.y[j], null);
    }
    const kin = data.families.flatMap((family, j) => (family === data.families[i] ? [j] : []));
    const of = (key) => modalities.flatMap((m) => kin.map((j) => data[m][key][j]));
    Plotly.restyle(
      plot,
      { x: [x, of("x"), [from[0]]], y: [y, of("y"), [from[1]]] },
      [LINES, FAMILY, CHOSEN],
    );
  };

  const pin = (modality, i) => {
    pinned = [modality, i];
    message.textContent = `${data.ids[i]} stays shown; click it again, or press Escape, to release it`;
    show(modality, i);
  };
  const unpin = () => {
    pinned = null;
    message.textContent = "";
  };

  const find = () => {
    const wanted = search.value.trim().toLowerCase();
    if (!wanted) return unpin();
    const ids = data.ids.map((id) => id.toLowerCase());
    let i = ids.indexOf(wanted);
    if (i < 0) i = ids.findIndex((id) => id.startsWith(wanted));
    if (i >= 0) return pin("sequence", i);
    message.textContent = `no protein here has the id “${search.value.trim()}”`;
  };

  const names = document.getElementById("map-ids");
  data.ids.forEach((id) => names.append(Object.assign(document.createElement("option"), { value: id })));

  Plotly.newPlot(
    plot,
    [lines, marks(16, "#009E73", 2), marks(22, "#22262e", 2.5), ...modalities.map(points)],
    layout, config,
  ).then(() => {
    const target = (event) => {
      const point = event.points[0];
      return [modalities[point.curveNumber - FIRST_POINTS], point.pointIndex];
    };
    plot.on("plotly_hover", (event) => { if (!pinned) show(...target(event)); });
    plot.on("plotly_click", (event) => {
      const [modality, i] = target(event);
      if (pinned && pinned[0] === modality && pinned[1] === i) unpin();
      else pin(modality, i);
    });
    search.addEventListener("change", find);
    search.addEventListener("keydown", (event) => { if (event.key === "Enter") find(); });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") unpin(); });
    plot.dataset.ready = "yes";
  });
})();
