// An opened hit: its numbers, both proteins in 3D, and the alignment, which are linked both ways.
(() => {
  "use strict";
  const { el, printable, counted, number, scientific, linkList, save, fileName, structureFiles } = window.ProtAlign;
  const { colourOf, fitOf, shareOf, residuesOf, label, sceneOf } = window.ProtAlign;

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
    ["evalue", "E-value", scientific, "Entries that would score as well by chance, in a search of this size. Below 0.01 chance is unlikely."],
    ["prob", "Probability", (v) => number(v, 3), "Estimated probability that query and entry share a fold."],
    ["backing", "Backing", (v) => `${number(v, 1)} nats`, "What the first hits say for an entry that is like them. It counts for the probability."],
    ["score", "Score with length term", (v) => `${number(v, 1)} nats`, "The global score less the length term of the search. It orders the hits."],
    ["local_score", "Local score", (v) => `${number(v, 1)} nats`, "Of the best local alignment: the sum of the aligned residues’ log-likelihood ratios, less the costs of gaps. High: a part of the sequence fits the structure."],
    ["global_score", "Global score", (v) => `${number(v, 1)} nats`, "Of the best diagonal, without gaps, or of those of several chains. High: the whole sequence fits the structure."],
    ["cosine", "Cosine", (v) => number(v, 3), "Cosine of the angle between the two proteins’ vectors, −1 to 1. It ranks the candidates."],
    ["fident", "Identity", (v) => `${number(100 * v, 0)} %`, "Share of the alignment’s columns with equal letters."],
    ["qcov", "Query coverage", (v) => `${number(100 * v, 0)} %`, "Share of the query between its first and its last aligned residue."],
    ["tcov", "Entry coverage", (v) => `${number(100 * v, 0)} %`, "Share of the entry between its first and its last aligned residue."],
    ["qtmscore", "TM-score", (v) => number(v, 3), "Of the superposed backbones, by the query’s length. Above 0.5 two chains mostly have the same fold."],
    ["ttmscore", "TM-score by entry", (v) => number(v, 3), "The same, by the entry’s length."],
    ["rmsd", "RMSD", (v) => `${number(v, 2)} Å`, "Of the CA atoms that the superposition pairs."],
  ];
  // Without a length term the score is one of the two others.
  const has = (hit, name) =>
    hit[name] !== null && hit[name] !== undefined &&
    (name !== "score" || ![hit.local_score, hit.global_score].includes(hit.score));
  const factsOf = (view) =>
    el("dl", { class: "facts" },
      ...FACTS.filter(([name]) => has(view.hit, name)).map(
        ([name, title, shown, meaning]) =>
          el("div", {}, el("dt", { text: title }), el("dd", {},
            el("b", { text: shown(view.hit[name]) }), el("span", { class: "meaning", text: meaning }))),
      ),
    );

  // ---- the alignment

  const alignmentOf = (view, residues, onPoint) => {
    const section = el("section", { class: "alignment", "aria-label": "Alignment" });
    const columns = columnsOf(view, residues.target);
    if (!columns.length) return { section, show: () => {}, say: () => {}, columns, find: () => -1 };
    const aligned = view.pairs.length > 0;
    const readout = el("p", { class: "readout", role: "status", text: "" });
    const in3d = view.structures.query || view.structures.target ? ": it is marked in 3D" : "";
    const hint = aligned ? `Point at a residue, or move with the arrow keys${in3d}.` : "No residues are aligned. These are the entry’s.";
    readout.textContent = hint;
    const grid = el("div", {
      class: "columns", tabindex: "0", role: "application", "aria-roledescription": "alignment",
      "aria-label": aligned ? `Alignment of ${counted(view.pairs.length, "residue pair")}. Left and right arrow keys move along it.` : "Letters of the entry. Left and right arrow keys move along them.",
    });
    const scores = view.superposition ? view.superposition.fit : null;
    const fit = fitOf(view);
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
            if (side === fit.side && part[i][at] !== null) {
              const share = shareOf(fit, part[i][at]);
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
      section.append(el("p", { class: "note", text: "| same letter, + the residues support the alignment (score above 0), · they do not. Colours are those of the 3D view." }));
    }
    const say = (text) => {
      readout.textContent = text;
    };
    const find = (side, position) => columns.findIndex((column) => column[side === "query" ? 0 : 1] === position);
    return { section, show, say, columns, find, close: () => watch.disconnect() };
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
    const close = () => {
      end();
      dialog.close();
    };
    const heading = el("h2", { id: "hit-title", tabindex: "-1", text: printable(title) });
    dialog.replaceChildren(
      el("header", {},
        el("div", { class: "titles" }, heading, el("p", { class: "note", text: place })),
        el("nav", { "aria-label": "Hits" }, button("←", "Previous hit", previous), button("→", "Next hit", next), button("✕", "Close", close)),
      ),
      body,
    );
    let scene = null, alignment = null, closed = false;
    const end = () => {
      if (closed) return;
      closed = true;
      if (scene) scene.close();
      if (alignment && alignment.close) alignment.close();
    };
    dialog.oncancel = end; // Escape: before the box has no room any more
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
        alignment.show(index);
        if (index < 0) alignment.say(`${side === "query" ? "Query" : "Entry"} ${label(residues[side][position])} · outside the alignment`);
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
      downloads.append(el("button", { type: "button", text: "This hit (JSON)", onclick: () => save(`${fileName(view.target.id)}.json`, JSON.stringify(view, null, 1), "application/json") }));
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

  Object.assign(window.ProtAlign, { openHit });
})();
