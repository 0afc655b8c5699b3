// Small tools of the pages, and the files that they save: TSV, JSON, FASTA, structures, ZIP.
window.ProtAlign = window.ProtAlign || {};
(() => {
  "use strict";

  // Make an element. Texts are only ever set as text: nothing out of a file becomes markup.
  const el = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name === "text") made.textContent = value;
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  };

  // Control characters and marks that turn the direction of text are shown as their codes.
  const odd = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
  const printable = (text) =>
    String(text).replace(odd, (letter) => `\\u${letter.codePointAt(0).toString(16).padStart(4, "0")}`);

  const counted = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

  const number = (value, digits) =>
    value === null || value === undefined ? "" : value.toFixed(digits).replace("-", "−");

  // An E-value or another small number: 0.031, 2.4, 3.6 × 10⁻⁴⁸.
  const raised = (power) => [...String(power)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
  const scientific = (value) => {
    if (value === null || value === undefined) return "";
    if (value === 0) return "0";
    if (value >= 0.001 && value < 10000) return String(Number(value.toPrecision(2)));
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits} × 10${raised(Number(power))}`;
  };

  // The databases that an entry is in, as its id and its accession tell.
  const UNIPROT = /^(?:[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2})$/;
  const PDB = /^(?:pdb_0000)?([1-9][a-z0-9]{3})(?:$|[_.:-](?:[A-Za-z0-9-]{1,6}|protein|pocket)$)/i;
  const SCOP = /^d([1-9][a-z0-9]{3})[a-z0-9_.][a-z0-9_]$/;
  const CATH = /^([1-9][a-z0-9]{3})[A-Za-z0-9][0-9]{2}$/;
  const PREDICTED = /^AF-([A-Z0-9]{6,10})-F[0-9]+/;
  const links = (id, accession) => {
    const found = new Map();
    const pdb = PDB.exec(id) || SCOP.exec(id) || CATH.exec(id);
    const names = String(accession || "").split(/[;,\s]+/);
    const uniprot = [id.split(/[_|.-]/)[0], ...id.split("|"), ...names].find((name) => UNIPROT.test(name));
    const predicted = PREDICTED.exec(id);
    const protein = predicted && UNIPROT.test(predicted[1]) ? predicted[1] : uniprot;
    if (pdb && /[a-z]/i.test(pdb[1])) {
      found.set(`RCSB ${pdb[1].toUpperCase()}`, `https://www.rcsb.org/structure/${pdb[1].toUpperCase()}`);
    }
    if (protein) {
      found.set(`UniProt ${protein}`, `https://www.uniprot.org/uniprotkb/${protein}`);
      found.set("AlphaFold DB", `https://alphafold.ebi.ac.uk/entry/${protein}`);
    }
    return [...found];
  };
  const linkList = (id, accession) =>
    links(id, accession).map(([name, href]) =>
      el("a", { href, target: "_blank", rel: "noopener noreferrer", class: "elsewhere", text: name }),
    );

  // ---- files

  const save = (name, content, type) => {
    const url = URL.createObjectURL(new Blob([content], { type }));
    const link = el("a", { href: url, download: name, hidden: true });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  // A cell of a table: one line, and never a formula of a spreadsheet.
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    if (Array.isArray(value) && value.every((each) => typeof each === "number")) return value.join(",");
    const text = printable(Array.isArray(value) ? value.join(",") : value);
    return /^'*[=+\-@]/.test(text) ? `'${text}` : text;
  };
  const tsv = (document_) =>
    [document_.columns, ...document_.hits.map((hit) => document_.columns.map((name) => cell(hit[name])))]
      .map((row) => row.join("\t") + "\n")
      .join("");

  const fasta = (entries) =>
    entries
      .flatMap(({ id, description, chains }) =>
        chains.map(({ name, letters }) => {
          const title = chains.length > 1 && name ? `${id}_${name}` : id;
          const header = printable(description ? `${title} ${description}` : title);
          return `>${header}\n${letters.replace(/.{1,60}/g, "$&\n")}`;
        }),
      )
      .join("");

  // A name of a file of plain letters.
  const fileName = (text) => String(text).replace(/[^A-Za-z0-9_.-]+/g, "_").replace(/^[.-]+/, "_").slice(0, 80) || "_";

  const placed = ([x, y, z], rotation, translation) =>
    [0, 1, 2].map((i) => rotation[3 * i] * x + rotation[3 * i + 1] * y + rotation[3 * i + 2] * z + translation[i]);

  // The text of a structure whose atoms are moved.
  const moved = (text, format, { rotation, translation }) => {
    if (format === "pdb") {
      return text
        .split("\n")
        .map((line) => {
          if (!line.startsWith("ATOM") && !line.startsWith("HETATM")) return line;
          const at = [30, 38, 46].map((start) => Number(line.slice(start, start + 8)));
          const to = placed(at, rotation, translation).map((value) => value.toFixed(3).padStart(8));
          return line.slice(0, 30) + to.join("") + line.slice(54);
        })
        .join("\n");
    }
    const names = [];
    return text
      .split("\n")
      .map((line) => {
        if (line.startsWith("_atom_site.")) names.push(line.trim());
        if (!line.startsWith("ATOM") && !line.startsWith("HETATM")) return line;
        const fields = line.match(/'[^']*'|"[^"]*"|\S+/g);
        const columns = ["x", "y", "z"].map((axis) => names.indexOf(`_atom_site.Cartn_${axis}`));
        placed(columns.map((column) => Number(fields[column])), rotation, translation).forEach((value, axis) => {
          fields[columns[axis]] = value.toFixed(3);
        });
        return fields.join(" ");
      })
      .join("\n");
  };

  // The structure files of one opened hit: the query, and the entry as it lies on the query.
  const structureFiles = (view) => {
    const { query, target, format } = view.structures;
    const suffix = format === "pdb" ? "pdb" : "cif";
    const rank = String(view.hit.rank).padStart(3, "0");
    const files = [];
    if (query) files.push([`query_${fileName(view.query.id)}.${suffix}`, query]);
    if (target) {
      const text = view.superposition ? moved(target, format, view.superposition) : target;
      files.push([`${rank}_${fileName(view.target.id)}.${suffix}`, text]);
    }
    return files;
  };

  // ---- a ZIP archive, not compressed (APPNOTE 6.3: local headers, directory, end record)

  const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });
  const checksum = (bytes) => {
    let sum = 0xffffffff;
    for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
    return (sum ^ 0xffffffff) >>> 0;
  };
  const packed = (...fields) => {
    const bytes = fields.flatMap(([size, value]) =>
      Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256),
    );
    return Uint8Array.from(bytes);
  };
  const DATE = (1 << 5) | 1; // 1 January 1980: the same files give the same bytes
  const zip = (files) => {
    const parts = [], directory = [];
    let offset = 0;
    for (const [name, text] of files) {
      const title = new TextEncoder().encode(name), data = new TextEncoder().encode(text);
      const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, DATE], [4, checksum(data)],
        [4, data.length], [4, data.length], [2, title.length], [2, 0]];
      const header = packed([4, 0x04034b50], ...common);
      directory.push(packed([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), title);
      parts.push(header, title, data);
      offset += header.length + title.length + data.length;
    }
    const size = directory.reduce((sum, part) => sum + part.length, 0);
    const end = packed([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]);
    return new Blob([...parts, ...directory, end]);
  };

  Object.assign(window.ProtAlign, {
    el, printable, counted, number, scientific, links, linkList, save, tsv, fasta, fileName, placed,
    moved, structureFiles, zip,
  });
})();
