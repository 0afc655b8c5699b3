// What was asked: in the fragment of the URL, which is never sent, or kept in this browser.
(() => {
  "use strict";

  const KEPT = 20; // searches with files or long sequences that the browser keeps
  const SHORT = 2000; // letters of sequences that a URL may hold

  // ---- the browser's database

  const database = () =>
    new Promise((resolve, reject) => {
      const opening = indexedDB.open("protalign", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("searches", { keyPath: "key" });
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });

  const keep = async (asked) => {
    const key = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const opened = await database();
    const store = opened.transaction("searches", "readwrite").objectStore("searches");
    await done(store.put({ key, time: Date.now(), fasta: asked.fasta, files: asked.files }));
    const every = (await done(store.getAll())).sort((a, b) => b.time - a.time);
    every.slice(KEPT).forEach((old) => store.delete(old.key));
    opened.close();
    return key;
  };
  const kept = async (key) => {
    const opened = await database();
    const found = await done(opened.transaction("searches").objectStore("searches").get(key));
    opened.close();
    return found;
  };

  // ---- the fragment

  // Return the parameters of a URL that names a search; files and long sequences are kept here.
  const written = async (asked) => {
    const words = new URLSearchParams();
    if (asked.files.length || asked.fasta.length > SHORT) words.set("kept", await keep(asked));
    else if (asked.fasta) words.set("fasta", asked.fasta);
    asked.ids.forEach((id) => words.append("id", id));
    Object.entries(asked.options).forEach(([name, value]) => words.set(name, value));
    return words;
  };
  // Return what a fragment names; null if it names no search.
  const read = async (fragment, names) => {
    const words = new URLSearchParams(fragment);
    const asked = { fasta: words.get("fasta") || "", files: [], ids: words.getAll("id"), options: {} };
    names.forEach((name) => words.has(name) && (asked.options[name] = words.get(name)));
    if (words.has("kept")) {
      const found = await kept(words.get("kept"));
      if (!found) {
        throw new Error("The files of this search are kept in the browser that it was made in; give them again.");
      }
      Object.assign(asked, { fasta: found.fasta, files: found.files });
    }
    return asked.fasta || asked.files.length || asked.ids.length ? asked : null;
  };

  // ---- what is asked

  // Return records without comments and empty lines between them.
  const tidy = (fasta) => {
    const text = fasta.replace(/^;.*$/gm, "").trim();
    if (!text) return "";
    const lines = text.startsWith(">") ? text : `>query_1\n${text}`;
    return lines.split(/^(?=>)/m).map((record) => record.trimEnd() + "\n").join("");
  };
  // Return the part of a search that a query of the answer came from: {fasta, files, ids}.
  const only = (asked, { input }) => ({
    ...asked,
    fasta: input.field === "fasta" ? asked.fasta : "",
    files: input.field === "structures" ? [asked.files[input.index]] : [],
    ids: input.field === "ids" ? [asked.ids[input.index]] : [],
  });

  window.ProtAlign.asked = { written, read, only, tidy };
})();
