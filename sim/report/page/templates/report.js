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
  makeExtremes(section, run);
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
