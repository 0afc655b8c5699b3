// An opened hit: its numbers, both proteins in 3D, and the alignment, which are linked both ways.
(() => {
  "use strict";
  const { el, printable, counted, number, scientific, linkList, save, fileName, placed, structureFiles } =
    window.ProtAlign;

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

  // The columns of the alignment: [query position, target position, score], null for a gap.
  const columnsOf = (view, targets) => {
    if (!view.pairs.length) return targets.map((_, t) => [null, t, null]);
    const columns = [];
    let [q, t] = view.pairs[0];
    for (const [nextQ, nextT, score] of view.pairs) {
      for (; q < nextQ; q++) columns.push([q, null, null]);
      for (; t < nextT; t++) columns.push([null, t, null]);
      columns.push([nextQ, nextT, score]);
      [q, t] = [nextQ + 1, nextT + 1];
    }
    return columns;
  };

  // ---- the numbers

  const FACTS = [
    ["evalue", "E-value", scientific, "Entries that would score as well by chance, in a search of this size. Below 0.001 a relationship is likely."],
    ["prob", "Probability", (v) => number(v, 3), "Estimated probability that query and entry share a fold."],
    ["score", "Score", (v) => `${number(v, 1)} nats`, "Sum of the aligned residues’ log-likelihood ratios, less the costs of gaps. High: the sequence fits the structure."],
    ["cosine", "Cosine", (v) => number(v, 3), "Cosine of the angle between the two proteins’ vectors, −1 to 1. It ranks the candidates."],
    ["fident", "Identity", (v) => `${number(100 * v, 0)} %`, "Share of the alignment’s columns with equal letters."],
    ["qcov", "Query coverage", (v) => `${number(100 * v, 0)} %`, "Share of the query between its first and its last aligned residue."],
    ["tcov", "Entry coverage", (v) => `${number(100 * v, 0)} %`, "Share of the entry between its first and its last aligned residue."],
    ["qtmscore", "TM-score", (v) => number(v, 3), "Of the superposed backbones, by the query’s length. Above 0.5 two chains mostly have the same fold."],
    ["ttmscore", "TM-score by entry", (v) => number(v, 3), "The same, by the entry’s length."],
    ["rmsd", "RMSD", (v) => `${number(v, 2)} Å`, "Of the CA atoms that the superposition pairs."],
  ];
  const factsOf = (view) =>
    el("dl", { class: "facts" },
      ...FACTS.filter(([name]) => view.hit[name] !== null && view.hit[name] !== undefined).map(
        ([name, title, shown, meaning]) =>
          el("div", {}, el("dt", { text: title }), el("dd", {},
            el("b", { text: shown(view.hit[name]) }), el("span", { class: "meaning", text: meaning }))),
      ),
    );

  // ---- the structures

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
      const format = view.structures.format === "pdb" ? "pdb" : "cif";
      this.models = {};
      this.atoms = {};
      for (const side of ["query", "target"]) {
        const text = view.structures[side];
        if (!text || (side === "query" && !view.superposition)) continue;
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
      this.colour = this.colours();
      const place = new Map();
      for (const [side, atoms] of Object.entries(this.atoms)) {
        for (const [position, atom] of atoms) place.set(`${side} ${atom.chain} ${atom.resi} ${atom.icode}`, position);
      }
      for (const [side, model] of Object.entries(this.models)) {
        const of = (atom) => place.get(`${side} ${atom.chain} ${atom.resi} ${atom.icode}`);
        model.setStyle({}, {
          cartoon: { colorfunc: (atom) => (side === "query" ? QUERY_COLOUR : this.colour(of(atom))) },
        });
        const point = (atom) => onPoint(side, of(atom));
        model.setHoverable({}, true, point, () => {});
        model.setClickable({}, true, point);
      }
      this.viewer.zoomTo();
      this.paint();
    }

    // The colour of each residue of the target by how well it fits.
    colours() {
      const { superposition, fit } = this.view;
      const values = superposition ? superposition.fit : fit;
      const most = superposition ? 100 : MOST_NATS;
      return (position) => {
        const value = position === undefined ? null : values[position];
        return value === null || value === undefined ? UNPAIRED : colourOf(value / most);
      };
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
        this.marks.push(this.viewer.addSphere({ center: { x, y, z }, radius: 1.5, color, opacity: 0.85 }));
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
      this.viewer.removeAllModels();
      this.viewer.removeAllShapes();
      const context = this.viewer.getCanvas().getContext("webgl2") || this.viewer.getCanvas().getContext("webgl");
      const lose = context && context.getExtension("WEBGL_lose_context");
      if (lose) lose.loseContext(); // browsers keep few contexts
    }
  }

  const legendOf = (view) => {
    const superposed = Boolean(view.superposition);
    const [low, high] = superposed ? ["far apart", "same place"] : ["0 nats or less", `${MOST_NATS} nats or more`];
    const meaning = superposed
      ? "Entry, by how near each residue lies to the query’s"
      : "Entry, by how well each residue fits the query’s";
    return el("div", { class: "legend" },
      superposed && el("span", { class: "key" }, el("i", { class: "swatch query" }), "Query"),
      el("span", { class: "key" }, el("i", { class: "swatch unpaired" }), superposed ? "Entry, not paired" : "Entry, not aligned"),
      el("span", { class: "key scale" }, `${meaning}: `, el("span", { class: "end", text: low }), el("i", { class: "ramp" }), el("span", { class: "end", text: high })),
    );
  };

  const noStructure = (view) => {
    if (!view.target.chains.length) return "This search compared vectors only, so it has no coordinates and no alignment of this hit. Search with residues (--rerank 200) for both.";
    if (!view.structures.target) return "The entry is a sequence without coordinates, so there is nothing to show in 3D.";
    return "";
  };

  const sceneOf = (view, residues, onPoint) => {
    const section = el("section", { class: "scene", "aria-label": "3D view" });
    const reason = noStructure(view);
    if (reason) {
      section.append(el("p", { class: "note", text: reason }));
      return { section, start: () => null };
    }
    const what = view.superposition
      ? `The backbone of ${printable(view.target.id)} superposed on that of the query`
      : `The backbone of ${printable(view.target.id)}, coloured by how well each residue fits the query`;
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
      tools.append(el("button", { type: "button", text: "Show all", onclick: () => scene.reset() }));
      box.dataset.ready = "yes";
      return scene;
    };
    return { section, start };
  };

  // ---- the alignment

  const alignmentOf = (view, residues, onPoint) => {
    const section = el("section", { class: "alignment", "aria-label": "Alignment" });
    const columns = columnsOf(view, residues.target);
    if (!columns.length) return { section, show: () => {}, columns, find: () => -1 };
    const aligned = view.pairs.length > 0;
    const readout = el("p", { class: "readout", role: "status", text: "" });
    const hint = aligned ? "Point at a residue, or move with the arrow keys: it is marked in 3D." : "No residues are aligned. These are the entry’s.";
    readout.textContent = hint;
    const grid = el("div", {
      class: "columns", tabindex: "0", role: "application", "aria-roledescription": "alignment",
      "aria-label": aligned ? `Alignment of ${counted(view.pairs.length, "residue pair")}. Left and right arrow keys move along it.` : "Letters of the entry. Left and right arrow keys move along them.",
    });
    const scores = view.superposition ? view.superposition.fit : null;
    const shade = (t, score) => {
      if (scores) return t === null || scores[t] === null ? null : scores[t] / 100;
      return score === null ? null : score / MOST_NATS;
    };
    const cells = [];
    const letter = (side, position) => (position === null ? "-" : residues[side][position].letter);
    const build = () => {
      const probe = el("span", { class: "probe", text: "MMMMMMMMMM" });
      grid.replaceChildren(probe);
      const wide = probe.getBoundingClientRect().width / 10 || 9;
      const names = 15;
      const width = Math.max(10, 10 * Math.floor((grid.clientWidth / wide - names) / 10) || 10);
      cells.length = 0;
      const blocks = [];
      for (let start = 0; start < columns.length; start += width) {
        const part = columns.slice(start, start + width);
        const lines = aligned ? { query: "Query", middle: "", target: "Entry" } : { target: "Entry" };
        const block = el("div", { class: "block" });
        const ofPart = part.map(() => []);
        for (const [side, title] of Object.entries(lines)) {
          const at = side === "query" ? 0 : 1;
          const positions = part.map((column) => column[at]).filter((position) => position !== null);
          const shownNumber = (position) => {
            if (side === "middle" || position === undefined) return "";
            const { number: n, code } = residues[side][position];
            return n === null ? "?" : n + code;
          };
          const line = el("div", { class: `line ${side}` }, el("span", { class: "name", text: title }),
            el("span", { class: "place", text: shownNumber(positions[0]) }));
          const row = el("span", { class: "letters" });
          part.forEach(([q, t, score], i) => {
            let text;
            if (side === "middle") {
              const same = q !== null && t !== null && letter("query", q) === letter("target", t);
              text = q === null || t === null ? " " : same && letter("query", q) !== "X" ? "|" : score > 0 ? "+" : "·";
            } else text = letter(side, part[i][at]);
            const made = el("span", { "data-column": start + i, text });
            if (side === "target" && t !== null) {
              const share = shade(t, score);
              if (share !== null) {
                made.style.setProperty("--fit", colourOf(share));
                made.className = "fits";
              }
            }
            ofPart[i].push(made);
            row.append(made);
          });
          line.append(row, el("span", { class: "place after", text: shownNumber(positions[positions.length - 1]) }));
          block.append(line);
        }
        cells.push(...ofPart);
        blocks.push(block);
      }
      grid.replaceChildren(...blocks);
    };

    let current = -1;
    const show = (index, { scroll = false } = {}) => {
      (cells[current] || []).forEach((cell) => cell.classList.remove("current"));
      current = index;
      if (!columns[index]) {
        readout.textContent = hint;
        return;
      }
      cells[index].forEach((cell) => cell.classList.add("current"));
      if (scroll) cells[index][0].scrollIntoView({ block: "nearest", inline: "nearest" });
      const [q, t, score] = columns[index];
      const parts = [];
      if (aligned) parts.push(q === null ? "Query: gap" : `Query ${label(residues.query[q])}`);
      parts.push(t === null ? "Entry: gap" : `Entry ${label(residues.target[t])}`);
      if (score !== null) parts.push(`${score > 0 ? "+" : ""}${number(score, 1)} nats`);
      if (scores && t !== null) parts.push(scores[t] === null ? "not paired in 3D" : `fit in 3D ${number(scores[t], 0)} of 100`);
      readout.textContent = parts.join(" · ");
    };
    const choose = (index, options) => {
      if (index === current) return;
      show(index, options);
      onPoint(columns[index] || null);
    };
    const pointed = (event) => {
      const cell = event.target.closest && event.target.closest("[data-column]");
      if (cell) choose(Number(cell.dataset.column));
    };
    grid.addEventListener("pointerover", pointed);
    grid.addEventListener("click", pointed);
    grid.addEventListener("keydown", (event) => {
      const perLine = grid.firstChild ? grid.firstChild.querySelectorAll(".target [data-column]").length : 10;
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perLine, ArrowDown: perLine, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const from = current < 0 ? (event.key === "ArrowRight" ? -1 : 0) : current;
      choose(Math.min(Math.max(from + steps[event.key], 0), columns.length - 1), { scroll: true });
    });
    let lastWidth = 0;
    const watch = new ResizeObserver(() => {
      if (Math.abs(grid.clientWidth - lastWidth) < 4) return;
      lastWidth = grid.clientWidth;
      const kept = current;
      build();
      if (kept >= 0) show(kept);
    });
    watch.observe(grid);
    section.append(el("h3", { text: aligned ? "Alignment" : "Sequence of the entry" }), readout, grid);
    if (aligned) {
      section.append(el("p", { class: "note", text: "| same letter, + the residues support the alignment (score above 0), · they do not. The entry’s letters are coloured as in 3D." }));
    }
    const find = (side, position) => columns.findIndex((column) => column[side === "query" ? 0 : 1] === position);
    return { section, show, columns, find, close: () => watch.disconnect() };
  };

  // ---- the dialog

  // Open a hit in a dialog; give functions that close it.
  //   load: gives the hit's document, at once or later.
  //   title, place: texts; previous, next, onClose: functions or null.
  const openHit = (dialog, { title, place, load, previous, next, onClose, reason }) => {
    const status = el("p", { class: "note", role: "status", text: "Opening …" });
    const body = el("div", { class: "body" }, status);
    const button = (text, name, action) =>
      el("button", { type: "button", text, "aria-label": name, title: name, disabled: !action, onclick: action || (() => {}) });
    const heading = el("h2", { id: "hit-title", tabindex: "-1", text: printable(title) });
    dialog.replaceChildren(
      el("header", {},
        el("div", { class: "titles" }, heading, el("p", { class: "note", text: place })),
        el("nav", { "aria-label": "Hits" }, button("←", "Previous hit", previous), button("→", "Next hit", next), button("✕", "Close", () => dialog.close())),
      ),
      body,
    );
    let scene = null, alignment = null, closed = false;
    const end = () => {
      closed = true;
      if (scene) scene.close();
      if (alignment && alignment.close) alignment.close();
      dialog.onclose = null;
    };
    dialog.onclose = () => {
      end();
      onClose();
    };
    if (!dialog.open) dialog.showModal();
    heading.focus();

    const fill = (view) => {
      if (closed) return;
      const residues = { query: residuesOf(view.query), target: residuesOf(view.target) };
      const fromScene = (side, position) => {
        if (position === undefined) return;
        const index = alignment.find(side, position);
        alignment.show(index, { scroll: false });
        const [q, t] = index < 0 ? [null, null] : alignment.columns[index];
        if (scene) scene.mark(index < 0 ? { [side]: position } : { query: q, target: t });
      };
      const made = sceneOf(view, residues, fromScene);
      alignment = alignmentOf(view, residues, (column) => {
        if (scene) scene.mark(column ? { query: column[0], target: column[1] } : {});
      });
      const about = [view.target.description, view.target.organism].filter(Boolean).map(printable).join(" · ");
      const downloads = el("p", { class: "downloads" });
      for (const [name, text] of structureFiles(view)) {
        const of = name.startsWith("query_") ? "Query" : view.superposition ? "Entry, superposed" : "Entry";
        downloads.append(el("button", { type: "button", text: `${of} (${name.endsWith("pdb") ? "PDB" : "mmCIF"})`, title: `Save ${name}: backbone atoms, B-factors are the fit`, onclick: () => save(name, text, "chemical/x-pdb") }));
      }
      downloads.append(el("button", { type: "button", text: "All of it (JSON)", onclick: () => save(`${fileName(view.target.id)}.json`, JSON.stringify(view, null, 1), "application/json") }));
      const links = linkList(view.target.id, view.target.accession);
      body.replaceChildren(
        el("div", { class: "sides" }, el("div", { class: "pictures" }, made.section, alignment.section),
          el("section", { class: "facts-and-files", "aria-label": "Numbers and files" },
            about && el("p", { class: "about", text: about }),
            links.length > 0 && el("p", { class: "links" }, ...links),
            el("p", { class: "note", text: `Query: ${counted(view.query.length || 0, "residue")}, by its ${view.query.modality}. Entry: ${counted(view.target.length || 0, "residue")}, by its ${view.target.modality}.` }),
            factsOf(view),
            el("h3", { text: "Save" }), downloads,
          )),
      );
      scene = made.start();
    };
    if (reason) {
      status.textContent = reason;
      return end;
    }
    Promise.resolve().then(load).then(fill).catch((error) => {
      if (!closed) status.textContent = `The hit could not be opened: ${error.message}`;
    });
    return end;
  };

  Object.assign(window.ProtAlign, { openHit, colourOf });
})();
