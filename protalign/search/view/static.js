// The page that holds its hits: data and documents of hits are in it, and the fragment names a hit.
(() => {
  "use strict";
  const { Hits } = window.ProtAlign;
  const data = JSON.parse(document.getElementById("hits-data").textContent);

  // A document is gzipped, in base64: it takes a fifth, and nothing in it can end its element.
  const viewOf = async (index) => {
    const held = document.getElementById(`hit-${index}`);
    const bytes = Uint8Array.from(atob(held.textContent.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };
  const reasonOf = (index) => (document.getElementById(`hit-${index}`) ? "" : data.reason);
  const fastaOf = async () => {
    const entries = new Map();
    let left = 0;
    for (const index of data.document.hits.keys()) {
      if (reasonOf(index)) left += 1;
      else {
        const { target } = await viewOf(index);
        entries.set(target.id, target);
      }
    }
    if (!entries.size) throw new Error("This page has no sequences: the search compared vectors only.");
    return { entries: [...entries.values()], left };
  };

  const place = () => new URLSearchParams(location.hash.slice(1));
  let quiet = false;
  const onState = ({ queryIndex, hit }) => {
    if (quiet) return;
    const next = new URLSearchParams();
    if (queryIndex) next.set("query", queryIndex + 1);
    if (hit) next.set("hit", hit);
    history.replaceState(null, "", `#${next}`);
  };
  document.querySelectorAll(".plain").forEach((section) => section.remove());
  const box = document.getElementById("hits");
  box.hidden = false;
  quiet = true;
  const hits = new Hits(box, data.document, { viewOf, reasonOf, fastaOf, onState });
  quiet = false;
  const follow = () => {
    const wanted = place();
    const query = Number(wanted.get("query") || 1) - 1;
    const hit = wanted.get("hit");
    if (query !== hits.query) hits.show(query);
    if (hit) hits.openTarget(hit);
    else hits.close();
  };
  window.addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "yes";
})();
