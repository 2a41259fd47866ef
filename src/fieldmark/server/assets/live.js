// Keeps a page up to date: told by the server that something changed, it asks for the page again
// and swaps the parts that differ. Charts are drawn by page.js.
"use strict";
(() => {
  const REST = 1000; // milliseconds between two updates, at least
  const SHARE = 4; // so many times as long as an update took: training needs the machine more
  const AGAIN = 2000; // milliseconds until a lost connection is tried again
  const SILENCE = 40000; // milliseconds without a word; the server breaks silence every 15 s
  const bar = document.getElementById("bar");
  const sources = new Map(); // id -> HTML of a part as the server sent it, before charts are drawn
  let events = null;
  let timer = 0; // until the connection is tried again, or is taken for lost
  let wanted = false;
  let busy = false;

  // -- parts ------------------------------------------------------------------------------------

  // The smallest elements that are swapped as a whole, in the order of the page.
  const parts = (root) =>
    [...root.querySelectorAll("#bar, main > section, #head, [data-part]")].filter(
      (part) => part.id && !part.querySelector("[data-part]"),
    );

  const remember = (root) => parts(root).forEach((part) => sources.set(part.id, part.outerHTML));

  function swap(old, next) {
    const focus = focused(old);
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const picked = new Set([...old.querySelectorAll("input:checked")].map((each) => each.value));
    const fresh = document.adoptNode(next);
    fresh.querySelectorAll("figure.chart").forEach((figure) => keepChart(old, figure));
    old.replaceWith(fresh);
    fresh.querySelectorAll("details").forEach((each, n) => (each.open = open[n] ?? each.open));
    fresh.querySelectorAll("input").forEach((each) => (each.checked = picked.has(each.value)));
    if (focus) restore(fresh, focus);
    window.fieldmark.watch(fresh);
  }

  // A chart whose numbers are the same stays as it is; another takes the old one's room.
  function keepChart(old, figure) {
    const before = old.querySelector(`#${CSS.escape(figure.id)}`);
    if (!before) return;
    const spec = (of) => of.querySelector("script").textContent;
    if (spec(before) === spec(figure)) return figure.replaceWith(before);
    const [from, to] = [before, figure].map((of) => of.querySelector(".plot"));
    to.style.minHeight = `${from.offsetHeight}px`;
  }

  const focusable = "a[href], button, input, summary, [tabindex]";

  function focused(part) {
    const active = document.activeElement;
    return part.contains(active) ? [...part.querySelectorAll(focusable)].indexOf(active) + 1 : 0;
  }

  const restore = (part, number) =>
    part.querySelectorAll(focusable)[number - 1]?.focus({ preventScroll: true });

  function update(page) {
    const main = document.querySelector("main");
    const kept = new Set();
    let last = null;
    for (const next of [...page.querySelector("main").children]) {
      kept.add(next.id);
      let mine = document.getElementById(next.id);
      if (!mine) {
        mine = document.adoptNode(next);
        last ? last.after(mine) : main.prepend(mine);
        window.fieldmark.watch(mine);
        remember(mine.parentNode);
      }
      last = mine;
    }
    [...main.children].filter((each) => !kept.has(each.id)).forEach((each) => each.remove());
    for (const next of parts(page)) {
      const [source, mine] = [next.outerHTML, document.getElementById(next.id)];
      if (!mine || sources.get(next.id) === source) continue;
      sources.set(next.id, source);
      swap(mine, next);
    }
    document.title = page.title;
    link("on");
    filter();
    tick();
  }

  // -- being told -------------------------------------------------------------------------------

  async function refresh() {
    wanted = true;
    if (busy) return;
    busy = true;
    while (wanted) {
      wanted = false;
      const began = performance.now();
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (answer.ok) {
          update(new DOMParser().parseFromString(await answer.text(), "text/html"));
        } else {
          link(answer.status === 404 ? "gone" : "off");
        }
      } catch {
        lost();
      }
      const rest = Math.max(REST, SHARE * (performance.now() - began));
      await new Promise((done) => setTimeout(done, rest));
    }
    busy = false;
  }

  function link(how) {
    const told = document.getElementById("link");
    const text = told.dataset[how];
    if (told.textContent !== text) told.textContent = text;
    told.classList.toggle("off", how !== "on");
  }

  const place = () => document.getElementById("bar").dataset.place;
  const isHere = (changed) =>
    place() === "." || changed === place() || changed.startsWith(`${place()}/`) ||
    location.pathname === "/compare" && changed !== ".";

  // A hidden page does not listen: a browser grants a server six connections, to all its pages.
  function listen() {
    if (document.hidden) return hangUp();
    if (events) return;
    hangUp();
    events = new EventSource("/events");
    events.addEventListener("version", (event) => {
      heard();
      link("on");
      const mine = document.getElementById("bar").dataset.version;
      if (JSON.parse(event.data) !== mine) refresh(); // something was missed
    });
    events.addEventListener("changed", (event) => {
      heard();
      if (JSON.parse(event.data).some(isHere)) refresh();
    });
    events.addEventListener("still", heard);
    events.addEventListener("error", lost);
  }

  function hangUp() {
    clearTimeout(timer);
    events?.close();
    events = null;
  }

  function heard() {
    clearTimeout(timer);
    timer = setTimeout(lost, SILENCE);
  }

  // Browsers differ in which errors they try again after; here all are alike.
  function lost() {
    link("off");
    hangUp();
    timer = setTimeout(listen, AGAIN);
  }

  // -- what needs no server ---------------------------------------------------------------------

  function filter() {
    const input = document.getElementById("filter");
    if (!input) return;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.querySelectorAll("#runs-rows tr")];
    const fits = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
    rows.forEach((row) => (row.hidden = !fits(row)));
    const shown = document.getElementById("shown");
    const count = rows.filter((row) => !row.hidden).length;
    shown.textContent = shown.dataset.of.replace("{n}", count).replace("{all}", rows.length);
    const picked = document.querySelectorAll("#runs-rows input:checked").length;
    document.getElementById("compare").disabled = picked !== 2;
  }

  const shown = (seconds) => {
    const [h, m, s] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    return [h, m, s].map((part) => String(part).padStart(2, "0")).join(":");
  };

  const begun = new WeakMap(); // when a clock was first seen, by this machine's own time

  function tick() {
    for (const clock of document.querySelectorAll(".clock[data-left], .clock[data-since]")) {
      if (!begun.has(clock)) begun.set(clock, performance.now());
      const passed = (performance.now() - begun.get(clock)) / 1000;
      const { left, since } = clock.dataset;
      const text = shown(left ? Math.max(0, left - passed) : Number(since) + passed);
      if (clock.textContent !== text) clock.textContent = text;
    }
  }

  if (!bar) return;
  remember(document);
  document.addEventListener("input", (event) => event.target.closest("#runs-form") && filter());
  document.addEventListener("visibilitychange", listen);
  window.addEventListener("pagehide", hangUp);
  window.addEventListener("pageshow", listen); // again, after a step back to this page
  setInterval(tick, 1000);
  filter();
  listen();
})();
