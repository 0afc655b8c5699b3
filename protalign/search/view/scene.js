// Both proteins of a hit in 3D, drawn by 3Dmol.js: superposed, or coloured by how well residues fit.
(() => {
  "use strict";
  const { el, printable, placed } = window.ProtAlign;

  const QUERY_COLOUR = "#7d8590";
  const UNPAIRED = "#c3c9d0";
  const STOPS = [[215, 25, 28], [240, 200, 80], [44, 123, 182]]; // red, yellow, blue: also for colour-blind eyes
  // Of a superposition 0 to 100; of a sequence the residues' scores in nats, 0 to 40.
  const MOST_NATS = 15;

  const colourOf = (share) => {
    const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
    const low = Math.min(Math.floor(place), STOPS.length - 2);
    const mixed = STOPS[low].map((value, i) => Math.round(value + (STOPS[low + 1][i] - value) * (place - low)));
    return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  };

  // The residues of a protein in the order of its joined letters.
  const residuesOf = (protein) =>
    protein.chains.flatMap(({ name, letters, numbers, codes }) =>
      [...letters].map((letter, i) => ({ chain: name, letter, number: numbers[i], code: codes[i] })),
    );
  const label = ({ chain, letter, number: n, code }) =>
    `${letter} ${chain ? `${printable(chain)}:` : ""}${n === null ? "not observed" : n + code}`;

  // Find the CA atom of each residue: both are in the same order, and residues without one are left out.
  const alphaCarbons = (model, residues) => {
    const atoms = new Map();
    let next = 0;
    for (const atom of model.selectedAtoms({ atom: "CA" })) {
      const same = ({ chain, number: n, code }) =>
        n === atom.resi && chain.trim() === String(atom.chain).trim() &&
        (atom.icode === undefined || (atom.icode || "").trim() === code);
      let at = next;
      while (at < residues.length && !same(residues[at])) at++;
      if (at === residues.length) continue;
      atoms.set(at, atom);
      next = at + 1;
    }
    return atoms;
  };

  // The side whose residues are coloured, and the value of each, of how many at most. Superposed: how near
  // each residue of the entry lies to the query. Else: how well residues fit, on the one with a structure.
  const fitOf = (view) => {
    const { superposition, structures, pairs, fit } = view;
    if (superposition) return { side: "target", values: superposition.fit, most: 100 };
    if (structures.target || !structures.query) return { side: "target", values: fit, most: MOST_NATS };
    const values = new Array(view.query.length).fill(null);
    pairs.forEach(([q, , score]) => {
      values[q] = score;
    });
    return { side: "query", values, most: MOST_NATS };
  };
  const shareOf = ({ values, most }, position) => {
    const value = values[position];
    return value === null || value === undefined ? null : value / most;
  };

  class Scene {
    constructor(box, view, residues, onPoint) {
      this.view = view;
      this.marks = [];
      this.viewer = window.$3Dmol.createViewer(box, { antialias: true });
      if (!this.viewer) throw new Error("WebGL is not available");
      this.theme = window.matchMedia("(prefers-color-scheme: dark)");
      this.paint = () => {
        this.viewer.setBackgroundColor(getComputedStyle(box).backgroundColor, 1);
        this.viewer.render();
      };
      this.theme.addEventListener("change", this.paint);
      const { structures } = view;
      const format = structures.format === "pdb" ? "pdb" : "cif";
      this.models = {};
      this.atoms = {};
      for (const side of ["query", "target"]) {
        const text = structures[side];
        if (!text || (side === "query" && structures.target && !view.superposition)) continue;
        const model = this.viewer.addModel(text, format);
        if (side === "target" && view.superposition) {
          const { rotation, translation } = view.superposition;
          for (const atom of model.selectedAtoms({})) {
            [atom.x, atom.y, atom.z] = placed([atom.x, atom.y, atom.z], rotation, translation);
          }
        }
        this.models[side] = model;
        this.atoms[side] = alphaCarbons(model, residues[side]);
      }
      const fit = fitOf(view);
      const colour = (position) => {
        const share = shareOf(fit, position);
        return share === null ? UNPAIRED : colourOf(share);
      };
      const place = new Map();
      for (const [side, atoms] of Object.entries(this.atoms)) {
        for (const [position, atom] of atoms) place.set(`${side} ${atom.chain} ${atom.resi} ${atom.icode}`, position);
      }
      for (const [side, model] of Object.entries(this.models)) {
        const of = (atom) => place.get(`${side} ${atom.chain} ${atom.resi} ${atom.icode}`);
        // The one that is not coloured is a thin tube, so that it hides nothing of the other.
        const drawn = side === fit.side
          ? { colorfunc: (atom) => colour(of(atom)) }
          : { style: "trace", thickness: 0.35, color: QUERY_COLOUR };
        model.setStyle({}, { cartoon: drawn });
        const point = (atom) => onPoint(side, of(atom));
        model.setHoverable({}, true, point, () => {});
        model.setClickable({}, true, point);
      }
      this.viewer.zoomTo();
      this.paint();
    }

    reset() {
      this.viewer.zoomTo();
      this.viewer.render();
    }

    show(side, shown) {
      if (!this.models[side]) return;
      if (shown) this.models[side].show();
      else this.models[side].hide();
      this.viewer.render();
    }

    // Put a ball on a residue of each side.
    mark(positions) {
      this.marks.forEach((mark) => this.viewer.removeShape(mark));
      this.marks = [];
      for (const [side, position] of Object.entries(positions)) {
        const atom = this.atoms[side] && this.atoms[side].get(position);
        if (!atom) continue;
        const { x, y, z } = atom;
        const color = side === "query" ? "#2f9e44" : "#c8149c";
        this.marks.push(this.viewer.addSphere({ center: { x, y, z }, radius: 2.4, color, opacity: 0.8 }));
      }
      this.viewer.render();
    }

    turn(key) {
      const turns = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] };
      const zooms = { "+": 1.2, "=": 1.2, "-": 1 / 1.2 };
      if (turns[key]) this.viewer.rotate(...turns[key]);
      else if (zooms[key]) this.viewer.zoom(zooms[key]);
      else if (key === "0") this.viewer.zoomTo();
      else return false;
      this.viewer.render();
      return true;
    }

    close() {
      this.theme.removeEventListener("change", this.paint);
      for (const watch of [this.viewer.divwatcher, this.viewer.intwatcher]) {
        if (watch) watch.disconnect(); // it would draw into a box without room
      }
      this.viewer.removeAllModels();
      this.viewer.removeAllShapes();
      const context = this.viewer.getCanvas().getContext("webgl2") || this.viewer.getCanvas().getContext("webgl");
      const lose = context && context.getExtension("WEBGL_lose_context");
      if (lose) lose.loseContext(); // browsers keep few contexts
    }
  }

  const legendOf = (view) => {
    const superposed = Boolean(view.superposition);
    const shown = fitOf(view).side === "query" ? "Query" : "Entry";
    const [low, high] = superposed ? ["far apart", "same place"] : ["0 nats or less", `${MOST_NATS} nats or more`];
    const meaning = superposed
      ? "Entry, by how near each residue lies to the query"
      : `${shown}, by how well ${shown === "Query" ? "the entry" : "the query"}’s residues fit`;
    return el("div", { class: "legend" },
      superposed && el("span", { class: "key" }, el("i", { class: "swatch query" }), "Query, a thin tube"),
      el("span", { class: "key" }, el("i", { class: "swatch unpaired" }), `${shown}, ${superposed ? "not paired" : "not aligned"}`),
      el("span", { class: "key scale" }, `${meaning}: `, el("span", { class: "end", text: low }), el("i", { class: "ramp" }), el("span", { class: "end", text: high })),
    );
  };

  const noStructure = (view) => {
    if (!view.target.chains.length) return "This search compared vectors only, so it has no coordinates and no alignment of this hit. Search with residues (--rerank 200) for both.";
    if (!view.structures.target && !view.structures.query) return "Neither has coordinates, so there is nothing to show in 3D.";
    return "";
  };

  const sceneOf = (view, residues, onPoint) => {
    const section = el("section", { class: "scene", "aria-label": "3D view" });
    const reason = noStructure(view);
    if (reason) {
      section.append(el("p", { class: "note", text: reason }));
      return { section, start: () => null };
    }
    const { side } = fitOf(view);
    const what = view.superposition
      ? `The backbone of ${printable(view.target.id)} superposed on that of the query`
      : `The backbone of ${printable(view[side].id)}, coloured by how well the other’s residues fit`;
    const box = el("div", {
      class: "viewer", tabindex: "0", role: "application", "aria-roledescription": "3D structure",
      "aria-label": `${what}. Arrow keys turn it, plus and minus zoom, 0 shows all.`,
    });
    const tools = el("div", { class: "tools" });
    section.append(box, legendOf(view), tools);
    const start = () => {
      let scene;
      try {
        scene = new Scene(box, view, residues, onPoint);
      } catch (error) {
        box.replaceChildren(el("p", { class: "note", text: "The 3D view needs WebGL, which this browser does not give. The alignment below does not need it." }));
        return null;
      }
      box.addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.altKey && scene.turn(event.key)) event.preventDefault();
      });
      const toggle = (side, text) => {
        const check = el("input", { type: "checkbox", checked: true, onchange: () => scene.show(side, check.checked) });
        return el("label", {}, check, ` ${text}`);
      };
      if (view.superposition) tools.append(toggle("query", "Query"), toggle("target", "Entry"));
      tools.append(el("button", { type: "button", text: "Reset view", onclick: () => scene.reset() }));
      box.dataset.ready = "yes";
      return scene;
    };
    return { section, start };
  };

  Object.assign(window.ProtAlign, { colourOf, fitOf, shareOf, residuesOf, label, sceneOf });
})();
