// The hits of a search: a table that is sorted, filtered and walked with keys, and opens its hits.
(() => {
  "use strict";
  const { el, printable, counted, number, scientific, linkList, save, tsv, fasta, fileName, structureFiles, zip, openHit } =
    window.ProtAlign;

  const AT_ONCE = 100; // rows that are made at once
  const MOST_IN_ARCHIVE = 200;

  const bar = (share) => {
    if (share === null || share === undefined) return [""];
    const fill = el("span", { class: "fill" });
    fill.style.setProperty("width", `${(100 * share).toFixed(1)}%`);
    return [el("span", { class: "bar", "aria-hidden": "true" }, fill), el("span", { class: "share", text: `${Math.round(100 * share)} %` })];
  };
  const entry = (hit, { open }) => {
    const parts = [hit.tdesc, hit.torganism].filter(Boolean).map(printable).join(" · ");
    const links = linkList(hit.target, hit.tacc);
    return [
      el("button", { type: "button", class: "open", text: printable(hit.target), title: "Open this hit", onclick: open }),
      parts && el("span", { class: "about", text: parts }),
      links.length > 0 && el("span", { class: "links" }, ...links),
    ];
  };

  // name, title, cell, meaning, the pages that have it (always, roomy, wide), whether the highest is best
  const COLUMNS = [
    ["rank", "#", (h) => [String(h.rank)], "Rank of the hit for its query", "always", false],
    ["target", "Entry", entry, "The entry that was found", "always", false],
    ["evalue", "E-value", (h) => [scientific(h.evalue)], "Entries that would score as well by chance, in a search of this size", "always", false],
    ["prob", "Prob.", (h) => [number(h.prob, 3)], "Estimated probability of a common fold: hits of local alignments are in its order", "widest", true],
    ["score", "Score", (h) => [number(h.score, 1)], "Score of the residues by the search’s mode, in nats: of the best local alignment, or of the best diagonal less the length term", "always", true],
    ["cosine", "Cosine", (h) => [number(h.cosine, 3)], "Cosine of the two proteins’ vectors, −1 to 1", "widest", true],
    ["qcov", "Query coverage", (h) => bar(h.qcov), "Share of the query that the alignment spans", "roomy", true],
    ["tcov", "Entry coverage", (h) => bar(h.tcov), "Share of the entry that the alignment spans", "roomy", true],
    ["fident", "Identity", (h) => [h.fident === null ? "" : `${Math.round(100 * h.fident)} %`], "Share of the alignment’s columns with equal letters", "widest", true],
    ["qtmscore", "TM-score", (h) => [number(h.qtmscore, 3)], "Of the superposed backbones, by the query’s length", "roomy", true],
    ["tlen", "Residues", (h) => [h.tlen === null ? "" : h.tlen.toLocaleString("en")], "Residues of the entry", "widest", true],
  ];

  class Hits {
    // box: where the hits go. document_: the document of hits. options:
    //   viewOf(index, signal): a Promise of the document of one hit, or null if there is none;
    //   reasonOf(index): why a hit has no document, or "";
    //   onState({query, hit}): called when another query or hit is shown;
    //   files: more buttons, [text, function]; fastaOf(hits): a Promise of entries for a FASTA file;
    //   onShown(query, rows): called when the table shows other rows.
    constructor(box, document_, options) {
      this.box = box;
      this.document = document_;
      this.options = options;
      this.query = 0;
      this.sort = { name: "rank", down: false };
      this.filter = "";
      this.limit = AT_ONCE;
      this.starts = [];
      let start = 0;
      for (const query of document_.queries) {
        this.starts.push(start);
        start += query.hits;
      }
      this.dialog = el("dialog", { class: "hit", "aria-labelledby": "hit-title" });
      this.build();
    }

    build() {
      const { queries } = this.document;
      this.status = el("p", { class: "note", role: "status" });
      this.table = el("table", { class: "hits" });
      this.more = el("p", { class: "more" });
      this.saved = el("span", { class: "note", role: "status" });
      const search = el("input", {
        type: "search", placeholder: "Filter by id, name or organism", "aria-label": "Filter the hits by id, name, organism or accession",
        oninput: () => {
          this.filter = search.value.trim().toLowerCase();
          this.limit = AT_ONCE;
          this.draw();
        },
      });
      const chooser = el("select", { id: "query-choice", onchange: () => this.show(Number(chooser.value)) });
      queries.forEach((query, i) => chooser.append(el("option", { value: i, text: `${printable(query.id)} (${counted(query.hits, "hit")})` })));
      this.chooser = chooser;
      const orders = el("select", { "aria-label": "Order of the hits", onchange: () => this.order(orders.value) });
      this.orders = orders;
      this.heading = el("h2", { tabindex: "-1" });
      this.facts = el("p", { class: "note" });
      const downloads = el("div", { class: "downloads", role: "group", "aria-label": "Save all hits" }, el("span", { class: "label", text: "Save all hits" }), ...this.downloads(), this.saved);
      this.box.replaceChildren(
        this.heading, this.facts,
        el("div", { class: "tools" },
          queries.length > 1 && el("label", { class: "query" }, el("span", { text: "Query" }), chooser),
          search, el("label", { class: "order" }, el("span", { text: "Order" }), orders)),
        this.status,
        el("div", { class: "wide" }, this.table),
        this.more, downloads, this.dialog,
      );
      this.table.addEventListener("keydown", (event) => this.walk(event));
      this.table.addEventListener("focusin", (event) => {
        const row = event.target.closest("tbody tr");
        if (row) this.choose(row);
      });
      this.show(0);
    }

    // The rows of the query that is shown: [index, hit].
    rows() {
      const query = this.document.queries[this.query];
      if (!query) return [];
      const start = this.starts[this.query];
      return this.document.hits.slice(start, start + query.hits).map((hit, i) => [start + i, hit]);
    }

    show(query) {
      this.query = Math.min(Math.max(query, 0), Math.max(this.document.queries.length - 1, 0));
      this.chooser.value = String(this.query);
      this.limit = AT_ONCE;
      const described = this.document.queries[this.query];
      if (!described) {
        this.box.replaceChildren(el("p", { text: "Nothing was searched." }));
        return;
      }
      this.heading.textContent = `Hits of ${printable(described.id)}`;
      const length = described.length === null ? "" : `${counted(described.length, "residue")}, `;
      this.facts.textContent = `${length}searched by its ${described.modality}.`;
      const rows = this.rows();
      this.columns = COLUMNS.filter(([name]) => name === "rank" || name === "target" || rows.some(([, hit]) => hit[name] !== null && hit[name] !== undefined));
      // A narrow page has the number that orders.
      if (rows.some(([, hit]) => hit.mode === "local" && hit.prob !== null && hit.prob !== undefined)) {
        const pages = { prob: "always", score: "roomy" };
        this.columns = this.columns.map(([name, title, cell, meaning, on, high]) => [name, title, cell, meaning, pages[name] || on, high]);
      }
      if (!this.columns.some(([name]) => name === this.sort.name)) this.sort = { name: "rank", down: false };
      this.orders.replaceChildren(...this.columns.map(([name, title]) => el("option", { value: name, text: name === "rank" ? "Rank" : title })));
      this.orders.value = this.sort.name;
      this.draw();
      this.options.onState?.({ query: described.id, queryIndex: this.query, hit: null });
    }

    order(name) {
      const best = this.columns.find((column) => column[0] === name)[5];
      this.sort = this.sort.name === name ? { name, down: !this.sort.down } : { name, down: best };
      this.orders.value = name;
      this.draw();
    }

    shown() {
      const { name, down } = this.sort;
      const words = this.filter;
      const kept = this.rows().filter(([, hit]) =>
        !words || [hit.target, hit.tdesc, hit.torganism, hit.tacc].some((text) => text && String(text).toLowerCase().includes(words)));
      const sign = down ? -1 : 1;
      return kept.sort(([, a], [, b]) => {
        const [x, y] = [a[name], b[name]];
        if (x === y) return a.rank - b.rank;
        if (x === null || x === undefined) return 1; // unknown ones last, in either direction
        if (y === null || y === undefined) return -1;
        return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
      });
    }

    draw() {
      const shown = this.shown(), total = this.rows().length;
      this.order_ = shown.map(([index]) => index);
      const head = el("tr", {}, ...this.columns.map(([name, title, , meaning, pages]) => {
        const sorted = this.sort.name === name;
        const arrow = sorted ? (this.sort.down ? " ↓" : " ↑") : "";
        return el("th", { scope: "col", class: `${name} ${pages}`, "aria-sort": sorted ? (this.sort.down ? "descending" : "ascending") : null },
          el("button", { type: "button", title: `${meaning}. Click to sort.`, onclick: () => {
            this.order(name);
            this.table.querySelector(`th.${name} button`).focus();
          } }, title, el("span", { "aria-hidden": "true", text: arrow })));
      }));
      const rows = shown.slice(0, this.limit).map(([index, hit], place) => {
        const row = el("tr", { "data-index": index });
        for (const [name, , cell, , pages] of this.columns) {
          const tag = name === "target" ? "th" : "td";
          row.append(el(tag, { scope: name === "target" ? "row" : null, class: `${name} ${pages}` },
            ...cell(hit, { open: () => this.open(index) })));
        }
        row.querySelectorAll("button, a").forEach((each) => each.setAttribute("tabindex", place === 0 ? "0" : "-1"));
        return row;
      });
      const caption = el("caption", { class: "hidden-visually", text: `${this.heading.textContent}. Up and down arrow keys move from hit to hit, Enter opens one.` });
      this.table.replaceChildren(caption, el("thead", {}, head), el("tbody", {}, ...rows));
      this.status.textContent = total === 0 ? "No hit. Nothing passed the filters of the search; a higher E-value limit gives more."
        : shown.length === total ? `${counted(total, "hit")}.` : `${shown.length.toLocaleString("en")} of ${counted(total, "hit")} match the filter.`;
      const left = shown.length - rows.length;
      this.more.replaceChildren(...(left > 0 ? [el("button", { type: "button", text: `Show ${Math.min(left, AT_ONCE)} more of ${left.toLocaleString("en")}`, onclick: () => {
        this.limit += AT_ONCE;
        this.draw();
      } })] : []));
      this.options.onShown?.(this.query, shown.map(([, hit]) => hit));
    }

    choose(row) {
      this.table.querySelectorAll("tbody [tabindex='0']").forEach((each) => each.setAttribute("tabindex", "-1"));
      row.querySelectorAll("button, a").forEach((each) => each.setAttribute("tabindex", "0"));
    }

    walk(event) {
      const row = event.target.closest("tbody tr");
      if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
      const all = [...row.parentElement.children], at = all.indexOf(row);
      const goals = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: all.length - 1 };
      if (!(event.key in goals)) return;
      event.preventDefault();
      const goal = all[Math.min(Math.max(goals[event.key], 0), all.length - 1)];
      goal.querySelector("button.open").focus();
    }

    // Open the hit of an entry; nothing if the query has no such hit.
    openTarget(target) {
      const found = this.rows().find(([, hit]) => hit.target === target);
      if (found) this.open(found[0]);
    }

    close() {
      if (!this.dialog.open) return;
      this.ended();
      this.dialog.close();
    }

    open(index) {
      const hit = this.document.hits[index];
      const place = this.order_.indexOf(index);
      const step = (by) => {
        const next = this.order_[place + by];
        return place < 0 || next === undefined ? null : () => {
          this.ended?.();
          this.open(next);
        };
      };
      this.options.onState?.({ query: hit.query, queryIndex: this.query, hit: hit.target });
      const controller = new AbortController();
      const end = openHit(this.dialog, {
        title: hit.target,
        place: `Hit ${hit.rank} of query ${printable(hit.query ?? this.document.queries[this.query].id)}`,
        reason: this.options.reasonOf?.(index) || "",
        load: () => this.options.viewOf(index, controller.signal),
        previous: step(-1),
        next: step(1),
        onClose: () => {
          controller.abort();
          this.options.onState?.({ query: hit.query, queryIndex: this.query, hit: null });
          const row = this.table.querySelector(`tr[data-index="${index}"] button.open`);
          if (row) row.focus();
        },
      });
      this.ended = () => {
        controller.abort();
        end();
      };
    }

    downloads() {
      const button = (text, action) => el("button", { type: "button", text, onclick: async () => {
        this.saved.textContent = "";
        try {
          await action();
        } catch (error) {
          this.saved.textContent = error.message;
        }
      } });
      return [
        button("TSV", () => save("hits.tsv", tsv(this.document), "text/tab-separated-values")),
        button("JSON", () => save("hits.json", JSON.stringify(this.document, null, 1), "application/json")),
        button("FASTA", async () => {
          const { entries, left } = await this.options.fastaOf();
          save("hits.fasta", fasta(entries), "text/x-fasta");
          this.saved.textContent = left ? `${counted(left, "hit")} left out: their sequences could not be had.` : "";
        }),
        button("Structures (ZIP)", async () => {
          const of = this.document.queries[this.query].id; // another may be shown before the end
          const files = new Map();
          const every = this.rows();
          const rows = every.slice(0, MOST_IN_ARCHIVE);
          let placed = 0, failed = null;
          for (const [i, [index]] of rows.entries()) {
            this.saved.textContent = `Superposing ${i + 1} of ${rows.length} …`;
            if (this.options.reasonOf?.(index)) continue;
            const found = await this.options.viewOf(index).then(structureFiles, (error) => {
              if (error.status === 0) throw error; // the server is gone
              failed ||= error;
              return [];
            });
            if (found.length) placed += 1;
            found.forEach(([name, text]) => files.set(name, text));
          }
          if (!files.size) throw failed || new Error("There are no structures to save: the search has no coordinates.");
          save(`${fileName(of)}_structures.zip`, zip([...files]), "application/zip");
          this.saved.textContent = `Structures of ${placed} of the ${counted(every.length, "hit")} of ${printable(of)} saved.`;
        }),
        ...(this.options.files || []).map(([text, action]) => button(text, action)),
      ];
    }
  }

  Object.assign(window.ProtAlign, { Hits });
})();
