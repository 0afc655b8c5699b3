// The map of the store's vectors, on which a query and its hits are marked.
(() => {
  "use strict";
  const { el, printable, counted, PointMap } = window.ProtAlign;
  const at = (id) => document.getElementById(id);

  const COLOURS = { sequence: "#2f86c9", structure: "#d9652b" };
  const overview = {
    drawn: null,
    turn: 0,
    // points: of GET /v1/map; onChoose(id): called when a point is chosen.
    draw(points, onChoose) {
      if (!points.length) return;
      const groups = Object.keys(COLOURS).map((modality) => {
        const of = points.filter((point) => point.modality === modality);
        return {
          name: modality, colour: COLOURS[modality], symbol: modality === "sequence" ? "circle" : "triangle", size: 4, opacity: 0.85,
          x: of.map((point) => point.x), y: of.map((point) => point.y), label: (i) => `${printable(of[i].id)}, ${modality}`, ids: of.map((point) => point.id),
        };
      });
      at("map-section").hidden = false;
      at("map-note").textContent = `${counted(points.length, "vector")} of the store in two dimensions (principal components). Near points have similar vectors, but most of what tells proteins apart is in the other dimensions. Choose a point to search with its entry.`;
      this.drawn = new PointMap(at("map"), groups, {
        label: "Map of the store’s vectors",
        onChoose: (group, i) => {
          if (group !== null) onChoose(groups[group].ids[i]);
        },
      });
      at("map-tools").replaceChildren(...this.drawn.buttons());
      const key = (name, text) => el("span", { class: "key" }, el("i", { class: `dot ${name}` }), text);
      at("map-legend").replaceChildren(key("sequence", "sequence"), key("structure", "structure"), key("query", "query"), key("ring", "hit"));
      at("map").dataset.ready = "yes";
    },
    // Mark a query and its hits. ask(): a Promise of the answer of POST /v1/map.
    async light(query, ask) {
      if (!this.drawn || query === undefined) return;
      const turn = ++this.turn;
      try {
        const { queries, hits } = await ask();
        if (turn !== this.turn) return;
        const from = queries[0];
        this.drawn.mark(
          from ? hits.map((hit) => [from.x, from.y, hit.x, hit.y]) : [],
          [
            ...hits.map(({ x, y }) => ({ x, y, size: 8, colour: "#12a67c", width: 2.5 })),
            ...queries.map(({ x, y }) => ({ x, y, size: 11, width: 3 })),
          ],
        );
        this.say(`${counted(hits.length, "hit")} of ${printable(query)} marked.`);
      } catch {
        // the map is an extra: the hits stand without it
      }
    },
    clear() {
      this.turn += 1;
      this.drawn?.mark([], []);
      this.say("");
    },
    say(text) {
      at("map-said").textContent = text;
    },
  };

  Object.assign(window.ProtAlign, { overview });
})();
