const data = JSON.parse(document.getElementById("data").textContent);
const fixed = (digits) => (value) => value.toFixed(digits);
const grouped = (value) => value.toLocaleString("en");
const percent = (value) => (100 * value).toFixed(1);
const MOST_IN_EXTREMES = 6;
const FORMATS = {
  percent,
  db: fixed(1),
  ssim: fixed(2),
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
const numberOf = (value) => (value === null ? null : Number(Array.isArray(value) ? value[0] : value));
// Users are called by their numbers; the files of a run call them user-0007.
const shortName = (name) => name.replace(/^user-0*(?=\d)/, "user ").replace(/^control-/, "control: ");

function wordsFor(column, value) {
  const format = formatOf(column);
  if (value === null || value === "") return "–";
  if (!format) return column.kind === "subject" || /^user-\d+$/.test(value) ? shortName(value) : String(value);
  if (Array.isArray(value)) return `${format(value[0])} [${value.slice(1).map(format).join(", ")}]`;
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
  if (column.more) cell.classList.add("more");
  if (column.kind === "verdict") {
    const verdict = value === null ? "failed" : value;
    cell.append(element("span", { className: "verdict " + verdict.replace(" ", "-") }, verdict));
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
      if (column.more) head.classList.add("more");
      if (column.group) head.append(element("span", {}, column.group));
      groups.append(head);
    }
    const button = element("button", { type: "button", title: column.meaning, onclick: () => sortBy(index) }, column.label);
    const head = element("th", { scope: "col", ariaSort: "none" }, button);
    if (column.group) button.setAttribute("aria-label", `${column.group}, ${column.label}`);
    if (starts) head.classList.add("starts");
    if (formatOf(column)) head.classList.add("number");
    if (!index) head.classList.add("first");
    if (column.more) head.classList.add("more");
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
  const foot = element("tfoot");
  if (table.control) {
    const line = element("tr", {}, ...table.control.map((_, index) => cellOf(table, index, table.control, choose)));
    line.dataset.name = table.control[0];
    foot.append(line);
  }
  place.append(element("table", {}, head, body, ...(table.control ? [foot] : [])));
  show();
  return (test) => { passes = test; return show(); };
}

// ---- the users of a run ---------------------------------------------------------------------------------------

function makeUsers(section, run, choose) {
  const place = section.querySelector("[data-users]"), table = run.users;
  const show = makeTable(place, table, (row) => choose(row[0], true));
  const text = section.querySelector("[data-text]"), verdict = section.querySelector("[data-verdict]");
  section.querySelector("[data-help]").append(...table.columns.map((column) => element("div", {},
    element("dt", {}, [column.group, column.label].filter(Boolean).join(", ")), element("dd", {}, column.meaning))));
  section.querySelector("[data-all]").addEventListener("change", (event) => place.classList.toggle("all", event.target.checked));
  const verdictAt = table.columns.findIndex((column) => column.kind === "verdict");
  const searched = new Map(table.rows.map((row) => {
    const words = table.columns.map((column, index) => (formatOf(column) || row[index] === null ? "" : `${row[index]} ${wordsFor(column, row[index])}`));
    return [row, words.join(" ").toLowerCase()];
  }));
  function filter() {
    const sought = text.value.trim().toLowerCase().split(/\s+/);
    const count = show((row) => {
      const own = verdictAt < 0 || row[verdictAt] === null ? "failed" : row[verdictAt];
      return (!verdict.value || own === verdict.value) && sought.every((word) => searched.get(row).includes(word));
    });
    section.querySelector("[data-count]").textContent = `${grouped(count)} of ${grouped(table.rows.length)} users`;
  }
  text.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  section.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
  filter();
  // A click anywhere in a row is as good as one on its name, for those who point.
  place.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr, tfoot tr");
    if (line && !event.target.closest("button") && !String(getSelection())) choose(line.dataset.name, true);
  });
}
