"use strict";
(() => {
  const svg = document.getElementById("plane");
  const rows = JSON.parse(document.getElementById("points").textContent);
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("#repeats ~ ol details:not([open])")) {
      closed.push(details);
      details.open = true;
    }
  });
  addEventListener("afterprint", () => closed.splice(0).forEach((details) => { details.open = false; }));
  for (const link of document.querySelectorAll('a[href^="#group-"]')) {
    link.addEventListener("click", () => { document.querySelector(`${link.getAttribute("href")} details`).open = true; });
  }

  const circles = Array.from(svg.querySelectorAll("circle"));
  const places = circles.map((circle) => [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))]);
  const told = document.getElementById("told");
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.id = "ring";
  ring.setAttribute("r", "9");
  ring.setAttribute("visibility", "hidden");
  svg.append(ring);
  let current = -1;
  let pinned = false;

  // Texts come from the data: they only ever become text nodes.
  const add = (name, text) => {
    if (!text) return;
    const line = document.createElement("p");
    line.className = name;
    line.dir = "auto";
    line.textContent = text;
    told.append(line);
  };
  const show = (number) => {
    if (number < 0 || number === current) return;
    current = number;
    ring.setAttribute("cx", places[number][0]);
    ring.setAttribute("cy", places[number][1]);
    ring.setAttribute("visibility", "visible");
    told.replaceChildren();
    const [about, prompt, completion] = rows[number];
    add("about soft", about);
    add("text prompt", prompt);
    add("text completion", completion);
  };
  const clear = () => {
    current = -1;
    pinned = false;
    ring.setAttribute("visibility", "hidden");
    told.replaceChildren();
    add("soft", "The text of the row pointed at stands here.");
  };
  const visible = (number) => !svg.classList.contains("searched") || circles[number].classList.contains("hit");
  const best = (cost) => {
    let found = -1;
    let least = Infinity;
    places.forEach((place, number) => {
      const value = visible(number) ? cost(place, number) : Infinity;
      if (value < least) [least, found] = [value, number];
    });
    return [found, least];
  };
  const under = (event) => {
    const box = svg.getBoundingClientRect();
    const view = svg.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * view.width;
    const y = ((event.clientY - box.top) / box.height) * view.height;
    const [found, distance] = best((place) => Math.hypot(place[0] - x, place[1] - y));
    return distance * (box.width / view.width) < 24 ? found : -1;
  };
  svg.addEventListener("pointermove", (event) => {
    if (!pinned && event.pointerType === "mouse") show(under(event));
  });
  svg.addEventListener("click", (event) => {
    const found = under(event);
    if (found < 0) return clear();
    pinned = !(pinned && found === current);
    show(found);
  });
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return clear();
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    pinned = true;
    if (current < 0) return first();
    const [x, y] = places[current];
    const [found] = best((place, number) => {
      const ahead = (place[0] - x) * step[0] + (place[1] - y) * step[1];
      const aside = Math.abs((place[0] - x) * step[1]) + Math.abs((place[1] - y) * step[0]);
      // Rows at the same place follow each other in their order.
      if (ahead === 0 && aside === 0) return (number - current) * (step[0] + step[1]) > 0 ? Math.abs(number - current) * 1e-9 : Infinity;
      return ahead > 0 ? ahead + 2 * aside : Infinity;
    });
    show(found);
  });
  const first = () => show(best((_, number) => number)[0]);
  svg.addEventListener("focus", () => { if (current < 0 && svg.matches(":focus-visible")) first(); });

  for (const input of document.querySelectorAll('input[name="color"]')) {
    input.addEventListener("change", () => {
      svg.dataset.color = input.value;
      for (const key of document.querySelectorAll(".key")) key.hidden = key.dataset.color !== input.value;
    });
  }
  const count = document.getElementById("count");
  const search = document.getElementById("search");
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    let hits = 0;
    rows.forEach((row, number) => {
      const hit = wanted !== "" && `${row[1]}\n${row[2]}`.toLowerCase().includes(wanted);
      circles[number].classList.toggle("hit", hit);
      hits += Number(hit);
    });
    svg.classList.toggle("searched", wanted !== "");
    count.textContent = wanted === "" ? "" : `${hits.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  });
  svg.classList.add("live");
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "application");
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  show(Number(svg.dataset.example));
})();
