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

/** Returns rows of tiles below each other: `lines` are pairs of a label and its `count` tiles. */
function stripOf(count, lines) {
  const strip = element("div", { className: "strip" }, ...lines.flatMap(([label, tiles]) => [element("span", {}, label), ...tiles]));
  strip.style.gridTemplateColumns = `auto repeat(${count}, auto)`;
  return strip;
}

const ROWS_IN_COMMON = { plain: "plain", class_mean: "class mean" };

/** Draws whose images are given away most and least: plain, protected, best estimate. */
async function makeExtremes(section, run) {
  const { common, subjects } = run.strips, place = section.querySelector("[data-extremes]");
  for (const { name, subject, rows, words } of run.extremes.filter((extreme) => extreme.subject in subjects)) {
    const [first, sheet] = await Promise.all([loaded(common), loaded(subjects[subject].sprite)]);
    const side = first.naturalHeight / run.strips.rows.length, columns = [...Array(Math.min(run.strips.count, MOST_IN_EXTREMES)).keys()];
    const line = (label, from, row) =>
      [label, columns.map((at) => tileOf(from, side, at, row, `${label}, image ${at + 1} of ${shortName(name)}`))];
    const lines = [line("plain", first, 0), ...rows.map((row) => line(subjects[subject].rows[row].label, sheet, row))];
    place.append(element("figure", {}, element("figcaption", {}, words), stripOf(columns.length, lines)));
  }
}

function makeStrips(section, run) {
  const { common, rows, count, subjects } = run.strips;
  const place = section.querySelector("[data-strip]"), select = section.querySelector("[data-subject]");
  const keyOf = (name) => (name in subjects ? name : name.startsWith("user-") && "shared" in subjects ? "shared" : null);
  const names = Object.keys(subjects);
  select.append(...names.map((name) => element("option", { value: name }, name === "shared" ? "all users (one theta)" : shortName(name))));
  let wanted = 0;
  async function choose(name, scroll) {
    const turn = ++wanted, key = keyOf(name);
    section.querySelectorAll("[data-users] tr[data-name]").forEach((line) => { line.ariaCurrent = String(line.dataset.name === name); });
    if (!key) {
      select.value = "";
      place.replaceChildren(element("p", {}, `There are no pictures of ${shortName(name)}.`));
      return;
    }
    select.value = key;
    const [first, sheet] = await Promise.all([loaded(common), loaded(subjects[key].sprite)]);
    if (turn !== wanted) return;
    const side = first.naturalHeight / rows.length, columns = [...Array(count).keys()];
    const inCommon = rows.map((of, row) => [ROWS_IN_COMMON[of], columns.map((at) => tileOf(first, side, at, row, `${ROWS_IN_COMMON[of]}, image ${at + 1}`))]);
    const own = subjects[key].rows.map(({ label, psnr, ssim }, row) => [label, columns.map((at) => {
      const near = psnr[at] === "100.0" ? "exact" : `${psnr[at]} dB`;
      return tileOf(sheet, side, at, row, `${label}, image ${at + 1} of ${shortName(name)}: ${near}, SSIM ${ssim[at]}`, near);
    })]);
    place.replaceChildren(stripOf(count, [...inCommon, ...own]));
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

const numberIn = (name) => shortName(name).replace(/^user /, "");

function makeHeatMap(figure, heat) {
  const { attackers, victims, values } = heat;
  const known = values.flat().filter((value) => value !== null).map(numberOf);
  const low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
  const longer = Math.max(attackers.length, victims.length);
  const side = Math.max(5, Math.min(44, Math.floor(640 / longer))), inside = side >= 36;
  const every = side >= 14 ? 1 : side >= 8 ? 5 : 10;
  const margin = 24 + 6 * Math.max(...attackers.map((name) => numberIn(name).length), 4);
  const width = margin + side * victims.length + 4, height = margin + side * attackers.length + 4;
  const title = `Heat map of gains in SSIM: ${attackers.length} attackers against ${victims.length} victims, from ${low.toFixed(3)} to ${high.toFixed(3)}`;
  const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, "font-size": 10, "font-family": "sans-serif" });
  const colourAt = (share) => data.colours[Math.round(share * (data.colours.length - 1))];
  const readout = figure.querySelector("[data-readout]");
  values.forEach((line, row) => line.forEach((value, column) => {
    if (value === null) return;
    // A gain below 0 is no gain: in all pictures of it, the darkest colour is 0.
    const share = high > 0 ? Math.max(0, numberOf(value)) / high : 0;
    const x = margin + column * side, y = margin + row * side;
    const words = `${shortName(attackers[row])} attacks ${shortName(victims[column])}: ${numberOf(value).toFixed(3)}`;
    const gap = side > 8 ? 1 : 0;
    svg.append(drawn("rect", { x, y, width: side - gap, height: side - gap, fill: colourAt(share) }, drawn("title", {}, words)));
    if (inside) {
      const attributes = { x: x + side / 2, y: y + side / 2 + 4, "text-anchor": "middle", fill: share > 0.5 ? "#000" : "#fff", "pointer-events": "none" };
      svg.append(drawn("text", attributes, numberOf(value).toFixed(2)));
    }
  }));
  const label = (name, at, attributes) => at % every ? [] : [drawn("text", attributes, numberIn(name))];
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
  figure.querySelector("[data-lowest]").textContent = low < 0 ? "0 or less" : "0";
  figure.querySelector("[data-highest]").textContent = high.toFixed(3);
  figure.querySelector("[data-ramp]").style.background = `linear-gradient(to right, ${data.colours.join(", ")})`;
}
