// The page of the server: what is asked, the answer, and the map.
(() => {
  "use strict";
  const { el, printable, counted, save, Hits, overview, asked: asking } = window.ProtAlign;
  const at = (id) => document.getElementById(id);
  const form = at("form");

  // Columns of a search without residues, and those that need more.
  const PLAIN = ["query", "target", "rank", "cosine", "against", "qlen", "tlen", "tdesc", "torganism", "taxid", "tacc"];
  const ALIGNED = ["score", "local_score", "global_score", "mode", "fident", "alnlen", "mismatch", "gapopen", "qstart", "qend", "tstart", "tend", "qcov", "tcov"];
  const CALIBRATED = ["evalue", "backing", "prob", "bits"];
  const OPTIONS = ["k", "against", "query_by", "rerank", "mode", "max_evalue", "min_prob", "min_cov", "min_tm", "tm_score"];
  const MARKED = 100; // hits that are marked on the map, at most

  let info = null; // what the server says of itself
  let files = [], ids = [];
  let running = null; // AbortController of the search
  let shown = null; // {asked, hits} of the answer that is shown
  let fragment = new URLSearchParams();

  // ---- requests

  class Refused extends Error {
    constructor(status, message, wait) {
      super(message);
      Object.assign(this, { status, wait });
    }
  }
  const ask = async (path, { body, accept = "application/json", signal } = {}) => {
    const headers = { Accept: accept };
    const key = sessionStorage.getItem("protalign-key");
    if (key) headers.Authorization = `Bearer ${key}`;
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", body, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The server does not answer; check that it runs, and try again.");
    }
    if (answer.ok) return answer;
    let message = `The server answered ${answer.status}.`;
    try {
      message = (await answer.json()).error.message;
    } catch {
      // another program between the two answered
    }
    if (answer.status === 401) at("key-box").hidden = false;
    throw new Refused(answer.status, message, Number(answer.headers.get("Retry-After")) || 1);
  };
  // A busy server is asked again.
  const patiently = async (path, options) => {
    for (let tries = 0; ; tries++) {
      try {
        return await ask(path, options);
      } catch (error) {
        if (![429, 503].includes(error.status) || tries === 5) throw error;
        at("said").textContent = `The server is busy; the next try is in ${counted(error.wait, "second")}.`;
        await new Promise((resolve, reject) => {
          const timer = setTimeout(resolve, 1000 * error.wait);
          options.signal?.addEventListener("abort", () => {
            clearTimeout(timer);
            reject(new DOMException("Cancelled", "AbortError"));
          });
        });
      }
    }
  };
  const bodyOf = (asked, more = {}) => {
    const body = new FormData();
    if (asked.fasta) body.set("fasta", asked.fasta);
    asked.ids.forEach((id) => body.append("ids", id));
    asked.files.forEach((file) => body.append("structures", file, file.name));
    Object.entries(more).forEach(([name, value]) => [value].flat().forEach((each) => body.append(name, each)));
    return body;
  };
  const parametersOf = (asked) => {
    const { options, files: structures, ids: entries } = asked;
    const given = Object.fromEntries(Object.entries(options).filter(([name, value]) => name !== "tm_score" && value !== ""));
    // As in easy-search: a least probability takes the place of the usual highest E-value.
    if (given.min_prob && given.max_evalue === form.elements.max_evalue.defaultValue) delete given.max_evalue;
    // Two sequences, or two structures, are compared by their vectors only.
    const same =
      (given.against === "sequence" && asked.fasta) || (given.against === "structure" && structures.length) ||
      (given.against === given.query_by && entries.length);
    const residues = info.model.residue_stage && Number(given.rerank) > 0 && !same;
    const calibrated = residues && info.model.calibrated;
    if (!residues) ["rerank", "mode", "max_evalue", "min_prob", "min_cov"].forEach((name) => delete given[name]);
    if (!calibrated) ["max_evalue", "min_prob"].forEach((name) => delete given[name]);
    ["min_prob", "min_cov"].forEach((name) => {
      if (given[name]) given[name] = Number(given[name]) / 100;
    });
    const columns = [...PLAIN, ...(residues ? ALIGNED : []), ...(calibrated ? CALIBRATED : [])];
    if (options.tm_score && (structures.length || entries.length)) columns.push("qtmscore");
    return { ...given, columns: columns.join(",") };
  };

  // ---- the form

  const chips = (list, names, remove) =>
    list.replaceChildren(...names.map((name, i) =>
      el("li", {}, el("span", { text: printable(name) }),
        el("button", { type: "button", "aria-label": `Remove ${printable(name)}`, text: "✕", onclick: () => remove(i) }))));
  const drawInputs = () => {
    chips(at("file-list"), files.map((file) => file.name), (i) => {
      files.splice(i, 1);
      drawInputs();
      at("choose").focus();
    });
    chips(at("entry-list"), ids, (i) => {
      ids.splice(i, 1);
      drawInputs();
      at("entry").focus();
    });
  };
  const addFiles = async (list) => {
    for (const file of list) {
      if (/\.(fasta|fa|faa|txt)$/i.test(file.name)) {
        at("fasta").value = `${at("fasta").value.trimEnd()}\n${await file.text()}`.trimStart();
      } else files.push(file);
    }
    drawInputs();
  };
  const addEntry = () => {
    const id = at("entry").value.trim();
    if (id && !ids.includes(id)) ids.push(id);
    at("entry").value = "";
    drawInputs();
  };
  const optionsOf = () => {
    const options = {};
    for (const name of OPTIONS) {
      const input = form.elements[name];
      const value = input.type === "checkbox" ? (input.checked ? "1" : "") : input.value.trim();
      const emptied = input.type === "number" && input.defaultValue;
      if (value !== "" || emptied) options[name] = value;
    }
    return options;
  };
  const given = () => ({ fasta: asking.tidy(at("fasta").value), files: [...files], ids: [...ids], options: optionsOf() });
  // Fill the form; return whether it can have all values. The others are the usual ones then.
  const fill = (asked) => {
    let filled = true;
    at("fasta").value = asked.fasta;
    [files, ids] = [[...asked.files], [...asked.ids]];
    for (const name of OPTIONS) {
      const input = form.elements[name];
      const value = asked.options[name];
      if (input.type === "checkbox") {
        input.checked = Boolean(value);
        continue;
      }
      const fits = value !== undefined && (input.type !== "number" || Number.isFinite(Number(value)));
      if (fits) input.value = value;
      if (fits && input.value === value) continue;
      if (input.type === "number") input.value = input.defaultValue;
      else input.selectedIndex = 0;
      filled &&= value === undefined;
    }
    drawInputs();
    return filled && form.checkValidity();
  };
  const complain = (message) => {
    at("error").textContent = message;
    at("error").hidden = !message;
  };

  // ---- the search

  const busy = (on) => {
    at("search").disabled = on;
    at("cancel").hidden = at("progress").hidden = !on;
  };
  const search = async (asked) => {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    complain("");
    busy(true);
    const start = performance.now();
    const what = [asked.fasta && "sequences", asked.files.length && counted(asked.files.length, "file"), asked.ids.length && counted(asked.ids.length, "entry", "entries")].filter(Boolean).join(", ");
    at("said").textContent = `Searching with ${what} …`;
    try {
      info = info || await (await ask("info")).json();
      const answer = await (await patiently("v1/search", { body: bodyOf(asked, parametersOf(asked)), signal })).json();
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      at("said").textContent = `${counted(answer.hits.length, "hit")} in ${seconds} s.`;
      at("key-box").hidden = true;
      return answer;
    } catch (error) {
      if (running?.signal === signal) at("said").textContent = error.name === "AbortError" ? "Cancelled." : "";
      if (error.name !== "AbortError") complain(error.message);
      return null;
    } finally {
      if (running?.signal === signal) {
        running = null;
        busy(false);
      }
    }
  };

  const show = (asked, answer) => {
    const views = new Map();
    // Not the alignment with the entry's structure, which this search did not compare. Structures
    // are superposed in any search.
    const queryOf = (index) => answer.queries.find((query) => query.id === answer.hits[index].query);
    const reasonOf = (index) => {
      const { modality } = queryOf(index);
      return modality === "sequence" && asked.options.against === modality ? "Two sequences are compared by their vectors only, so there is no alignment." : "";
    };
    const viewOf = (index, signal) => {
      if (!views.has(index)) {
        const hit = answer.hits[index];
        const more = { query: hit.query, target: hit.target, query_by: asked.options.query_by, mode: asked.options.mode };
        const made = patiently("v1/align", { body: bodyOf(asking.only(asked, queryOf(index)), more), signal })
          .then((response) => response.json())
          .then((view) => ({ ...view, hit: { ...view.hit, ...Object.fromEntries(Object.entries(hit).filter(([, value]) => value !== null)) } }));
        views.set(index, made);
        made.catch(() => views.delete(index));
      }
      return views.get(index);
    };
    const fastaOf = async () => {
      const targets = [...new Set(answer.hits.map((hit) => hit.target))];
      const entries = [];
      for (const id of targets) {
        const entry = await patiently(`v1/entries/${encodeURIComponent(id)}`, {}).then((response) => response.json(), (error) => {
          if (!error.status) throw error; // the server is gone
          return {};
        });
        if (entry.chains) entries.push({ id, description: answer.hits.find((hit) => hit.target === id).tdesc, chains: chainsOf(entry) });
      }
      return { entries, left: targets.length - entries.length };
    };
    const onState = ({ queryIndex, hit }) => {
      fragment.delete("query");
      fragment.delete("hit");
      if (queryIndex) fragment.set("query", queryIndex + 1);
      if (hit) fragment.set("hit", hit);
      history.replaceState(null, "", `#${fragment}`);
    };
    const page = async () => {
      const response = await patiently("v1/search", { body: bodyOf(asked, parametersOf(asked)), accept: "text/html" });
      save("hits.html", await response.text(), "text/html");
    };
    const failures = answer.failures || [];
    at("failures").hidden = !failures.length;
    at("failures").replaceChildren(el("h2", { text: "Not searched" }), el("ul", {}, ...failures.map((failure) =>
      el("li", { text: printable([[failure.file, failure.id].filter(Boolean).join(", "), `${failure.reason}${failure.advice ? `; ${failure.advice}` : ""}`].filter(Boolean).join(": ")) }))));
    const hits = new Hits(at("hits"), answer, {
      viewOf, reasonOf, fastaOf, onState, files: [["One page (HTML)", page]],
      onShown: (query, rows) => light(asked, answer.queries[query], rows.slice(0, MARKED).map((hit) => hit.target)),
    });
    shown = { asked, hits };
    return hits;
  };
  const light = (asked, query, targets) =>
    overview.light(query?.id, async () => {
      const body = bodyOf(asking.only(asked, query), { query: query.id, hits: targets, query_by: asked.options.query_by, against: asked.options.against });
      return (await ask("v1/map", { body })).json();
    });
  const chosen = (id) => {
    if (shown?.hits.rows().some(([, hit]) => hit.target === id)) shown.hits.openTarget(id);
    else if (!ids.includes(id)) {
      ids.push(id);
      drawInputs();
      overview.say(`${printable(id)} was added to the entries to search with.`);
    }
  };
  // An entry's chains, as the server names them.
  const chainsOf = (entry) =>
    Array.isArray(entry.chains) ? entry.chains.map((chain) => ({ name: chain.name ?? "", letters: chain.letters ?? chain.sequence }))
      : Object.entries(entry.sequences || {}).map(([name, letters]) => ({ name, letters }));

  let submitted = 0;
  const submit = async (asked, { query = 0, hit = null } = {}) => {
    if (!asked.fasta && !asked.files.length && !asked.ids.length) {
      complain("Nothing to search with: paste a sequence, choose a structure file, or add an entry.");
      at("fasta").focus();
      return;
    }
    const turn = ++submitted;
    const answer = await search(asked);
    if (!answer || turn !== submitted) return;
    const words = await asking.written(asked).catch(() => new URLSearchParams());
    if (turn !== submitted) return; // cleared, or asked again
    fragment = words;
    const hits = show(asked, answer);
    if (query) hits.show(query);
    if (hit) hits.openTarget(hit);
    else {
      at("results").scrollIntoView({ block: "start" });
      hits.heading.focus({ preventScroll: true });
    }
  };

  // ---- the start

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (at("entry").value.trim()) addEntry();
    followed = "";
    submit(given());
  });
  form.addEventListener("invalid", () => (at("options").open = true), true); // the field must be seen
  const stop = () => {
    running?.abort();
    running = null;
    submitted += 1;
    followed = "";
    busy(false);
  };
  form.addEventListener("reset", () => {
    [files, ids] = [[], []];
    drawInputs();
    complain("");
    stop();
    at("said").textContent = "";
    at("hits").replaceChildren();
    at("failures").hidden = true;
    overview.clear();
    shown = null;
    fragment = new URLSearchParams();
    history.replaceState(null, "", location.pathname);
  });
  at("cancel").addEventListener("click", () => running?.abort());
  at("choose").addEventListener("click", () => at("files").click());
  at("files").addEventListener("change", () => {
    addFiles(at("files").files);
    at("files").value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (![...(event.dataTransfer?.types || [])].includes("Files")) return;
      event.preventDefault();
      at("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") addFiles([...event.dataTransfer.files]);
    });
  }
  at("add-entry").addEventListener("click", addEntry);
  at("entry").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !at("entry").value.trim()) return;
    event.preventDefault();
    addEntry();
  });
  let waiting = null, wantedIds = 0;
  at("entry").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const turn = ++wantedIds, part = at("entry").value.trim();
      if (!part) return;
      try {
        const answer = await (await ask(`v1/entries?contains=${encodeURIComponent(part)}&limit=20`)).json();
        if (turn !== wantedIds) return;
        const entries = answer.entries ?? answer.data ?? answer;
        at("entry-ids").replaceChildren(...entries.map((entry) => el("option", { value: entry.id ?? entry, text: entry.description ?? "" })));
      } catch (error) {
        complain(error.message);
      }
    }, 150);
  });
  at("key").addEventListener("change", () => {
    sessionStorage.setItem("protalign-key", at("key").value);
    complain("");
    start();
  });

  const describe = () => {
    const { sequences, structures } = info.vectors;
    at("about").textContent = `Finds the structures that a protein sequence fits, and the sequences that a structure fits, among ${counted(structures, "structure")} and ${counted(sequences, "sequence")}.`;
    at("server").textContent = `ProtAlign ${info.version}. Model: ${info.model.name ?? ""}${info.model.line ? `, ${info.model.line}` : ""}. Structures are drawn by 3Dmol.js.`;
    form.elements.k.max = info.limits.hits;
    form.elements.rerank.max = info.limits.rerank;
    if (!info.model.residue_stage) {
      form.elements.rerank.value = form.elements.rerank.defaultValue = 0;
      form.elements.rerank.disabled = true;
    }
    if (!info.model.calibrated) ["max_evalue", "min_prob"].forEach((name) => {
      form.elements[name].disabled = true;
    });
  };
  const start = async () => {
    try {
      info = await (await ask("info")).json();
      at("key-box").hidden = true;
      describe();
      const { points } = await (await ask("v1/map")).json();
      overview.draw(points, chosen);
    } catch (error) {
      complain(error.message);
      return;
    }
    await follow();
  };
  let followed = "";
  const follow = async () => {
    const words = new URLSearchParams(location.hash.slice(1));
    const place = { query: Number(words.get("query") || 1) - 1, hit: words.get("hit") };
    ["query", "hit"].forEach((name) => words.delete(name));
    const same = new URLSearchParams(fragment);
    ["query", "hit"].forEach((name) => same.delete(name));
    if (shown && String(same) === String(words)) {
      if (shown.hits.query !== place.query) shown.hits.show(place.query);
      if (place.hit) shown.hits.openTarget(place.hit);
      else shown.hits.close();
      return;
    }
    if (followed === String(words)) return;
    followed = String(words);
    try {
      const asked = await asking.read(words, OPTIONS);
      if (!asked) return;
      if (fill(asked)) await submit(given(), place);
      else {
        stop();
        at("options").open = true;
        complain("The link has a value that an option cannot have. Look at the options, then search.");
      }
    } catch (error) {
      complain(error.message);
    }
  };
  window.addEventListener("hashchange", follow);
  start().finally(() => {
    document.documentElement.dataset.ready = "yes";
  });
})();
