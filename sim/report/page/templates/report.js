"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const fixed = (digits) => (value) => value.toFixed(digits);
  const grouped = (value) => value.toLocaleString("en");
  const percent = (value) => (100 * value).toFixed(1);
  const FORMATS = {
    percent,
    db: fixed(1),
    ssim: fixed(3),
    points: (value) => (value > 0 ? "+" : "") + value.toFixed(1),
    count: grouped,
    number: (value) => String(Number(value.toPrecision(4))),
    bytes: (value) => {
      const step = value < 1e3 ? 0 : Math.min(4, Math.floor(Math.log10(value) / 3));
      return (step ? (value / 1000 ** step).toPrecision(3) : String(value)) + " " + ["B", "kB", "MB", "GB", "TB"][step];
    },
  };

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // ---- tables: {columns: [{key, group, label, kind, meaning}], rows: [[...]]} -------------------------------------

  const formatOf = (column) => FORMATS[column.kind] || (column.kind.startsWith("share ") ? percent : null);
  // A number that JSON has no form for comes as a text.
  const numberOf = (value) => (value === null ? null : Number(value));

  function wordsFor(column, value) {
    const format = formatOf(column);
    if (value === null || value === "") return "–";
    if (!format) return String(value);
    const number = numberOf(value);
    return Number.isFinite(number) ? format(number) : number > 0 ? "∞" : "−∞";
  }

  function compared(column, a, b) {
    return formatOf(column) ? numberOf(a) - numberOf(b) || 0 : String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function cellOf(table, index, row, choose) {
    const column = table.columns[index], value = row[index];
    const words = wordsFor(column, value);
    const cell = element(index ? "td" : "th", index ? {} : { scope: "row" });
    if (index && column.group && column.group !== table.columns[index - 1].group) cell.classList.add("starts");
    if (formatOf(column)) cell.classList.add("number");
    if (column.kind === "verdict") {
      const verdict = value === null ? "failed" : value;
      cell.append(element("span", { className: "verdict " + verdict }, verdict));
    } else if (choose && index === 0) {
      cell.append(element("button", { type: "button", onclick: () => choose(row) }, words));
    } else {
      cell.append(words);
    }
    if (words.length > 40) cell.classList.add("long");
    if (column.kind.startsWith("share ") && value) {
      const colour = `color-mix(in srgb, var(--${column.kind.slice(6)}) 45%, white)`;
      cell.style.background = `linear-gradient(to right, ${colour} ${100 * value}%, transparent 0)`;
    }
    return cell;
  }

  function headOf(table, sortBy) {
    const groups = element("tr"), labels = element("tr");
    table.columns.forEach((column, index) => {
      const starts = index > 0 && column.group && column.group !== table.columns[index - 1].group;
      if (index && !starts && column.group === table.columns[index - 1].group) {
        groups.lastChild.colSpan += 1;
      } else {
        const head = element(column.group ? "th" : "td", { className: column.group ? "group" : "" });
        if (column.group) head.append(element("span", {}, column.group));
        groups.append(head);
      }
      const button = element("button", { type: "button", title: column.meaning, onclick: () => sortBy(index) }, column.label);
      const head = element("th", { scope: "col", ariaSort: "none" }, button);
      if (column.group) button.setAttribute("aria-label", `${column.group}, ${column.label}`);
      if (starts) head.classList.add("starts");
      if (formatOf(column)) head.classList.add("number");
      if (!index) head.classList.add("first");
      labels.append(head);
    });
    const head = element("thead");
    if (table.columns.some((column) => column.group)) head.append(groups);
    head.append(labels);
    return head;
  }

  /** Builds a sortable table in `place`; returns a function that shows the rows that pass a test and counts them. */
  function makeTable(place, table, choose) {
    const rows = table.rows.map((row) => {
      const line = element("tr", {}, ...row.map((_, index) => cellOf(table, index, row, choose)));
      line.dataset.name = row[0];
      return { row, line };
    });
    let order = rows, passes = () => true, sorted = -1, sign = 1;
    const body = element("tbody");
    function show() {
      const shown = order.filter(({ row }) => passes(row));
      const lines = document.createDocumentFragment();
      shown.forEach(({ line }) => lines.append(line));
      body.replaceChildren(lines);
      return shown.length;
    }
    const head = headOf(table, (index) => {
      sign = sorted === index ? -sign : 1;
      sorted = index;
      const column = table.columns[index];
      const known = ({ row }) => row[index] !== null && row[index] !== "";
      // What is unknown comes last whichever way a column is sorted.
      order = [...rows.filter(known).sort((a, b) => sign * compared(column, a.row[index], b.row[index])), ...rows.filter((item) => !known(item))];
      head.querySelectorAll("th[aria-sort]").forEach((cell, at) => {
        cell.ariaSort = at !== index ? "none" : sign > 0 ? "ascending" : "descending";
      });
      show();
    });
    place.append(element("table", {}, head, body));
    show();
    return (test) => { passes = test; return show(); };
  }

  // ---- the users of a run ---------------------------------------------------------------------------------------

  function makeUsers(section, run, choose) {
    const place = section.querySelector("[data-users]"), table = run.users;
    const show = makeTable(place, table, (row) => choose(row[0], true));
    const text = section.querySelector("[data-text]"), verdict = section.querySelector("[data-verdict]");
    const verdictAt = table.columns.findIndex((column) => column.kind === "verdict");
    const searched = new Map(table.rows.map((row) => {
      const words = table.columns.map((column, index) => (formatOf(column) ? "" : row[index] === null ? "" : row[index]));
      return [row, words.join(" ").toLowerCase()];
    }));
    function filter() {
      const sought = text.value.trim().toLowerCase().split(/\s+/);
      const count = show((row) => {
        const own = verdictAt < 0 || row[verdictAt] === null ? "failed" : row[verdictAt];
        return (!verdict.value || own === verdict.value) && sought.every((word) => searched.get(row).includes(word));
      });
      section.querySelector("[data-count]").textContent = `${grouped(count)} of ${grouped(table.rows.length)} rows`;
    }
    text.addEventListener("input", filter);
    verdict.addEventListener("change", filter);
    section.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
    filter();
    // A click anywhere in a row is as good as one on its name, for those who point.
    place.addEventListener("click", (event) => {
      const line = event.target.closest("tbody tr");
      if (line && !event.target.closest("button") && !String(getSelection())) choose(line.dataset.name, true);
    });
  }

  // ---- the images of a user -------------------------------------------------------------------------------------

  async function loaded(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  }

  function tileOf(sheet, side, column, line, words, caption) {
    const canvas = element("canvas", { width: side, height: side, role: "img", ariaLabel: words, title: words });
    canvas.getContext("2d").drawImage(sheet, column * side, line * side, side, side, 0, 0, side, side);
    return element("figure", {}, canvas, ...(caption ? [element("figcaption", {}, caption)] : []));
  }

  function makeStrips(section, run) {
    const { plain, count, subjects } = run.strips;
    const place = section.querySelector("[data-strip]"), select = section.querySelector("[data-subject]");
    const keyOf = (name) => (name in subjects ? name : name.startsWith("user-") && "shared" in subjects ? "shared" : null);
    const names = Object.keys(subjects);
    select.append(...names.map((name) => element("option", { value: name }, name === "shared" ? "all users (one theta)" : name)));
    let wanted = 0;
    async function choose(name, scroll) {
      const turn = ++wanted, key = keyOf(name);
      section.querySelectorAll("[data-users] tbody tr").forEach((line) => { line.ariaCurrent = String(line.dataset.name === name); });
      if (!key) {
        select.value = "";
        place.replaceChildren(element("p", {}, `There are no pictures of ${name}.`));
        return;
      }
      select.value = key;
      const [first, sheet] = await Promise.all([loaded(plain), loaded(subjects[key].sprite)]);
      if (turn !== wanted) return;
      const side = first.naturalHeight, strip = element("div", { className: "strip" });
      strip.style.gridTemplateColumns = `auto repeat(${count}, auto)`;
      const line = (label, tiles) => strip.append(element("span", {}, label), ...tiles);
      const columns = [...Array(count).keys()];
      line("plain", columns.map((at) => tileOf(first, side, at, 0, `plain image ${at + 1}`)));
      subjects[key].rows.forEach(({ label, psnr, ssim }, row) => line(label, columns.map((at) => {
        const words = `${label}, image ${at + 1} of ${name}: ${psnr[at]} dB, SSIM ${ssim[at]}`;
        return tileOf(sheet, side, at, row, words, `${psnr[at]} dB`);
      })));
      place.replaceChildren(strip);
      if (scroll) section.querySelector(".strips").scrollIntoView({ block: "nearest" });
    }
    select.addEventListener("change", () => choose(select.value, false));
    if (names.length) choose(names[0], false);
    return choose;
  }

  // ---- a matrix of colours --------------------------------------------------------------------------------------

  function drawn(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.append(...children);
    return made;
  }

  const shortName = (name) => (/^user-\d+$/.test(name) ? String(Number(name.slice(5))) : name);

  function makeHeatMap(figure, heat) {
    const { attackers, victims, values } = heat;
    const known = values.flat().filter((value) => value !== null).map(numberOf);
    const low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
    const longer = Math.max(attackers.length, victims.length);
    const side = Math.max(5, Math.min(44, Math.floor(640 / longer))), inside = side >= 36;
    const every = side >= 14 ? 1 : side >= 8 ? 5 : 10;
    const margin = 24 + 6 * Math.max(...attackers.map((name) => shortName(name).length), 4);
    const width = margin + side * victims.length + 4, height = margin + side * attackers.length + 4;
    const title = `Heat map of gains in SSIM: ${attackers.length} attackers against ${victims.length} victims, from ${low.toFixed(3)} to ${high.toFixed(3)}`;
    const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, "font-size": 10, "font-family": "sans-serif" });
    const colourAt = (share) => data.colours[Math.round(share * (data.colours.length - 1))];
    const readout = figure.querySelector("[data-readout]");
    values.forEach((line, row) => line.forEach((value, column) => {
      if (value === null) return;
      const share = high > low ? (numberOf(value) - low) / (high - low) : 0.5;
      const x = margin + column * side, y = margin + row * side;
      const words = `${attackers[row]} attacks ${victims[column]}: ${numberOf(value).toFixed(3)}`;
      const gap = side > 8 ? 1 : 0;
      svg.append(drawn("rect", { x, y, width: side - gap, height: side - gap, fill: colourAt(share) }, drawn("title", {}, words)));
      if (inside) {
        const attributes = { x: x + side / 2, y: y + side / 2 + 4, "text-anchor": "middle", fill: share > 0.5 ? "#000" : "#fff", "pointer-events": "none" };
        svg.append(drawn("text", attributes, numberOf(value).toFixed(2)));
      }
    }));
    const label = (name, at, attributes) => at % every ? [] : [drawn("text", attributes, shortName(name))];
    attackers.forEach((name, at) => svg.append(...label(name, at, { x: margin - 4, y: margin + (at + 0.5) * side + 3, "text-anchor": "end" })));
    victims.forEach((name, at) => {
      const x = margin + (at + 0.5) * side + 3, y = margin - 5;
      svg.append(...label(name, at, { x, y, transform: `rotate(-90 ${x} ${y})` }));
    });
    svg.append(drawn("text", { x: margin, y: 10 }, "victim"));
    svg.append(drawn("text", { x: 10, y: margin, transform: `rotate(-90 10 ${margin})`, "text-anchor": "end" }, "attacker"));
    const say = (event) => {
      const words = event.target.querySelector && event.target.querySelector("title");
      if (words) readout.textContent = words.textContent;
    };
    svg.addEventListener("pointerover", say);
    svg.addEventListener("click", say);
    figure.querySelector("[data-heat]").append(svg);
    figure.querySelector("[data-lowest]").textContent = low.toFixed(3);
    figure.querySelector("[data-highest]").textContent = high.toFixed(3);
    figure.querySelector("[data-ramp]").style.background = `linear-gradient(to right, ${data.colours.join(", ")})`;
  }

  // ---- the page -------------------------------------------------------------------------------------------------

  /** Calls `make` once: when `place` comes near the window, or when the page is printed. */
  function whenNear(place, make) {
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && once(), { rootMargin: "600px" });
    function once() {
      observer.disconnect();
      removeEventListener("beforeprint", once);
      make();
    }
    observer.observe(place);
    addEventListener("beforeprint", once);
  }

  function fill(section) {
    const run = data.runs[Number(section.dataset.run)];
    // Users first: choosing a subject marks its row.
    let choose = () => {};
    makeUsers(section, run, (name, scroll) => choose(name, scroll));
    choose = makeStrips(section, run);
    section.querySelectorAll(".study").forEach((article, index) => whenNear(article, () => {
      const { table, heat } = run.studies[index];
      makeTable(article.querySelector("[data-study]"), table);
      if (heat) makeHeatMap(article.querySelector(".heat"), heat);
    }));
  }

  document.querySelectorAll("section.run").forEach(fill);
  // Of several runs, one is filled when it is opened first.
  document.querySelectorAll("details.run").forEach((section) => {
    section.addEventListener("toggle", () => fill(section), { once: true });
  });
  if (data.comparison) {
    const names = data.comparison.rows.map((row) => row[0]);
    makeTable(document.querySelector("[data-comparison]"), data.comparison, (row) => {
      const section = document.getElementById(`run-${names.indexOf(row[0])}`);
      section.open = true;
      section.scrollIntoView();
    });
  }
})();
