// The interactive map: pointing at a protein shows its nearest points of the other modality.
(() => {
  "use strict";
  const { PointMap } = window.ProtAlign;
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const plot = document.getElementById("map");
  const panel = document.getElementById("map-panel");
  const search = document.getElementById("map-search");
  const message = document.getElementById("map-message");
  const other = { sequence: "structure", structure: "sequence" };
  const colour = { sequence: "#0072B2", structure: "#D55E00" };
  const symbol = { sequence: "circle", structure: "triangle" };
  const modalities = ["sequence", "structure"];
  let pinned = null;

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
    const lines = data[modality].near[i].map((j) => [...from, goal.x[j], goal.y[j]]);
    const kin = data.families.flatMap((family, j) => (family === data.families[i] ? [j] : []));
    const family = modalities.flatMap((m) => kin.map((j) => ({ x: data[m].x[j], y: data[m].y[j], size: 8, colour: "#009E73" })));
    map.mark(lines, [...family, { x: from[0], y: from[1], size: 11, width: 2.5 }]);
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

  const map = new PointMap(
    plot,
    modalities.map((modality) => ({
      name: modality, colour: colour[modality], symbol: symbol[modality], size: 4.5,
      x: data[modality].x, y: data[modality].y,
      label: (i) => `${data.ids[i]} · ${modality}, family ${data.families[i]}`,
    })),
    {
      label: "Map of the aligned space",
      onPoint: (group, i) => {
        if (group !== null && !pinned) show(modalities[group], i);
      },
      onChoose: (group, i) => {
        if (group === null) return;
        if (pinned && pinned[0] === modalities[group] && pinned[1] === i) unpin();
        else pin(modalities[group], i);
      },
    },
  );
  document.getElementById("map-buttons").append(...map.buttons());
  search.addEventListener("change", find);
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") find(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") unpin(); });
  plot.pointMap = map;
  plot.dataset.ready = "yes";
})();
