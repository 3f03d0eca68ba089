// The page's script: it lights up a cell's group, writes the cell's trace, and works out what is changed.
// `lines` are the formulas' lines as functions of an element; nothing else here knows a formula.
((lines) => {
  "use strict";

  // --- where elements are: numbers in C order, and places in the view -------------------------------

  const product = (sizes) => sizes.reduce((all, size) => all * size, 1);

  class View {
    constructor({ view, axes, channels, over }) {
      Object.assign(this, { view, axes, channels, over: { ...over, "": axes } });
      this.every = view.map((_, axis) => axis);
      this.kept = this.every.filter((axis) => !axes.includes(axis));
    }

    place(number) {
      const place = [];
      for (let axis = this.view.length - 1; axis >= 0; axis--) {
        place[axis] = number % this.view[axis];
        number = Math.floor(number / this.view[axis]);
      }
      return place;
    }

    number(place, axes = this.every) {
      return axes.reduce((number, axis) => number * this.view[axis] + place[axis], 0);
    }

    size(axes) { return product(axes.map((axis) => this.view[axis])); }

    key(element, axes) { return this.number(this.place(element), axes); }

    group(element) { return this.key(element, this.kept); }

    // The k-th of the elements that differ from this one along these axes only.
    member(element, axes, k) {
      const place = this.place(element);
      for (const axis of [...axes].reverse()) {
        place[axis] = k % this.view[axis];
        k = Math.floor(k / this.view[axis]);
      }
      return this.number(place);
    }

    members(element, axes) {
      return Array.from({ length: this.size(axes) }, (_, k) => this.member(element, axes, k));
    }
  }

  // --- templates: # and @ are places for numbers, { and } are about a sum's terms -------------------

  const guarded = (text, place) => (place === "@" && /^~?-/.test(text) ? `(${text})` : text);

  // The text in pieces: [text, sum, term], the last two null outside of sums; after "..." terms count from the end.
  function* pieces(template, numbers) {
    let next = 0, sum = -1, term = null, inside = false, between = "";
    for (const [token] of template.matchAll(/[{}#@]|[^{}#@]+/g)) {
      if (token === "{") {
        inside = true;
        if (between === " + " || between === ", ") term += 1;
        else if (between === " + ... + " || between === ", ..., ") term = -3;
        else { sum += 1; term = 0; }
      } else if (token === "}") { inside = false; between = ""; }
      else {
        const text = /^[#@]$/.test(token) ? guarded(numbers[next++], token) : token;
        if (!inside) between += text;
        yield [text, inside ? sum : null, inside ? term : null];
      }
    }
  }

  // --- numbers as text ------------------------------------------------------------------------------

  const number = (text) => (typeof text === "number" ? text : Number(text));

  function notation(values, precision) {
    const largest = Math.max(0, ...values.filter(Number.isFinite).map(Math.abs));
    return largest >= 1e9 || (largest > 0 && largest < 10 ** -precision) ? "toExponential" : "toFixed";
  }

  function decimal(value, way, precision) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    const text = value[way](precision).replace(/e([+-])(\d)$/, "e$10$2");
    return /[1-9]/.test(text) ? text : text.replace("-", "");
  }

  function written(value) {
    if (!Number.isFinite(value)) return decimal(value);
    const small = value !== 0 && Math.abs(value) < 1e-4;
    return (small ? value.toExponential() : String(value)).replace(/e([+-])(\d)$/, "e$10$2");
  }

  const computed = (value, precision) =>
    Number.isInteger(value) && Math.abs(value) < 1e9 ? written(value) : decimal(value, notation([value], precision), precision);

  // --- what if: the lines in double precision -------------------------------------------------------

  const over = (above, below) => (below === 0 ? 0 : above / below); // a constant group gives 0 by definition
  const divided = (above, below) => above / below; // as kinds beyond the family have it

  function calculated(program, known, x, given, flow) {
    const view = new View(program);
    const [n, N, channels] = [view.axes, view.over.samples ?? [], view.channels].map((axes) => view.size(axes));
    const own = (name, channel, otherwise) =>
      given[name] && given[name].length === channels ? number(given[name][channel]) : otherwise;
    const named = Object.entries(given.named ?? {}).filter(([name]) => name !== "eps"); // which may be changed
    const elements = x.map((value, i) => {
      const channel = view.key(i, view.channels);
      const mean = own("running_mean", channel, 0), spread = own("running_var", channel, 1);
      return {
        x: value, grad_output: flow ? flow[i] : 0, n, N, eps: given.eps, m: given.m, rest_of_m: Number((1 - given.m).toPrecision(10)),
        weight: own("weight", channel, 1), bias: own("bias", channel, 0),
        running_mean: mean, running_var: spread, old_running_mean: mean, old_running_var: spread,
        ...Object.fromEntries(named.map(([name, [axes, values]]) => [name, number(values[view.key(i, axes)])])),
        members: (axes) => view.members(i, view.over[axes]).map((other) => elements[other]),
        over: given.named ? divided : over,
        equal(one, other) { return Number(one === other); },
        sum_of(term, axes) { return this.members(axes).reduce((total, v) => total + term(v), 0); },
        max_of(term, axes) { return this.members(axes).reduce((most, v) => Math.max(most, term(v)), -Infinity); },
        min_of(term, axes) { return this.members(axes).reduce((least, v) => Math.min(least, term(v)), Infinity); },
        mean_of(term, axes) { return this.sum_of(term, axes) / view.size(view.over[axes]); },
      };
    });
    for (const [line, axes] of program.lines) {
      const [name, number] = known[line], found = new Map();
      const values = elements.map((v, i) => {
        const key = view.key(i, axes);
        if (!found.has(key)) found.set(key, lines[number](v));
        return found.get(key);
      });
      elements.forEach((v, i) => { v[name] = values[i]; });
    }
    return elements;
  }

  const GIVEN = new Set(["x", "weight", "bias", "grad_output", "n", "N", "eps", "m", "rest_of_m"]);

  function withNumbers(words, v, precision, given) {
    const fill = (text, at) => text.replace(/([#@])(\w+)/g, (_, place, name) => guarded(
      GIVEN.has(name) || given.has(name) ? written(at[name]) : computed(at[name], precision), place));
    return fill(words.replace(/(max\(|min\()?\[(\w*):([^\]]*)\]/g, (_, extreme = "", axes, term) => {
      const terms = v.members(axes).map((one) => `{${fill(extreme ? term.replace(/^@/, "#") : term, one)}}`);
      const some = terms.length > 1000 ? [...terms.slice(0, 3), "...", ...terms.slice(-3)] : terms;
      return extreme + some.join(extreme ? ", " : " + ");
    }), v);
  }

  // --- one article ----------------------------------------------------------------------------------

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // Text in which 4.59e-05 and n-1 stay on one line: browsers break them after the hyphen.
  const unbroken = (text) => text.split(/([\w.]+-\d+)/).filter(Boolean).map((piece) =>
    /^[\w.]+-\d/.test(piece) ? element("span", { className: "whole" }, piece) : piece);

  function start(article, address) {
    const source = article.querySelector(".data");
    if (!source) return;
    const data = JSON.parse(source.textContent);
    const all = (selector) => [...article.querySelectorAll(selector)];
    const one = (selector) => article.querySelector(selector);
    const cells = all("td[data-i]"), faces = all("polygon[data-i]"), trace = one(".trace");
    const grids = all("[role=grid]"), count = one(".axes figcaption span");
    const numberOf = (cell) => Number(cell.dataset.i);
    const own = new View(data);
    const shape = new View({ view: data.shape, axes: [], channels: [], over: {} });
    const words = (i) => `(${shape.place(i).join(", ")})`;
    const shown = [...new Set(cells.map(numberOf))];
    let view = own, chosen = null, pinned = null, what = null, marked = [];

    // Which line of a step's numbers belongs to an element: the how-manieth of its group, channel or itself.
    const places = { element: own.every, group: own.kept, channel: own.channels };
    const order = {};
    for (const [scope, axes] of Object.entries(places)) {
      order[scope] = new Map();
      for (const i of shown) {
        const key = own.key(i, axes);
        if (!order[scope].has(key)) order[scope].set(key, order[scope].size);
      }
    }
    const given = new Set(Object.keys(data.given?.named ?? {}));
    const steps = data.steps.map((step) => ({ ...step, lines: step.lines.split(";") }));

    function* exactly(i) {
      for (const step of steps) {
        const numbers = step.lines[order[step.of].get(own.key(i, places[step.of]))].split(" ");
        const template = step.templates[numbers[0].startsWith("!") ? Number(numbers.shift().slice(1)) : 0];
        const value = numbers.pop().replaceAll(",", ", "); // one for each rank
        yield { ...step, parts: pieces(template, numbers), value };
      }
    }

    function* anew(i) {
      const v = what.elements[i];
      for (const [name, , formula, line] of what.program.lines.map(([line]) => data.lines[line])) {
        if (formula === undefined) continue;
        const sums = [...line.matchAll(/\[(\w*):/g)].map((found) => found[1]);
        const parts = pieces(withNumbers(line, v, data.precision, given), []);
        const value = decimal(v[name], notation([v[name]], data.precision), data.precision);
        yield { name, formula, sums, parts, value };
      }
    }

    function write(i) {
      if (!trace) return;
      const rows = [];
      for (const step of what ? anew(i) : exactly(i)) {
        const filled = element("code", { className: "filled" });
        let span = null, last = "";
        for (const [text, sum, term] of step.parts) {
          const name = sum === null || step.sums[sum] === undefined ? "" : `${sum} ${term}`;
          if (name === "") filled.append(...unbroken(text));
          else if (name === last) span.append(...unbroken(text));
          else {
            const axes = view.over[step.sums[sum]];
            span = element("span", { className: "term" }, ...unbroken(text));
            span.dataset.i = view.member(i, axes, term < 0 ? view.size(axes) + term : term);
            filled.append(span);
          }
          last = name;
        }
        rows.push(element("li", { className: step.name === data.backward ? "backward" : "" },
          element("b", {}, step.name), " ", element("code", { className: "formula" }, ...unbroken(step.formula)), " ",
          filled, " ", element("output", {}, step.value)));
      }
      trace.querySelector("h2").textContent = `trace of element ${words(i)}`;
      trace.querySelector("ol").replaceChildren(...rows);
      trace.querySelector(".cell-check").textContent = what ? "" : data.check[i] || "";
    }

    // What shows an element (its cells, and faces of the picture), and the elements that are shown of each group.
    const showing = new Map();
    for (const item of [...cells, ...faces]) {
      const i = numberOf(item);
      if (!showing.has(i)) showing.set(i, []);
      showing.get(i).push(item);
    }
    const groups = new Map();
    function group(i) {
      if (!groups.has(view)) {
        const found = new Map();
        for (const other of showing.keys()) {
          const key = view.group(other);
          if (!found.has(key)) found.set(key, []);
          found.get(key).push(other);
        }
        groups.set(view, found);
      }
      return groups.get(view).get(view.group(i)).flatMap((other) => showing.get(other)).filter(isGiven);
    }
    const inGrids = new Set(all("[role=grid] td[data-i]"));
    const isGiven = (item) => !inGrids.has(item);
    const cellsOf = (i) => (showing.get(i) ?? []).filter((item) => item.matches("td"));

    // The chosen cell, its group in the input, and its trace.
    let lit = all(".lit");
    function choose(i, force = false) {
      if (i === chosen && !force) return;
      const now = group(i), before = chosen === null ? all(".chosen") : cellsOf(chosen);
      if (force || now[0] !== lit[0]) {
        for (const item of lit) item.classList.remove("lit");
        for (const item of now) item.classList.add("lit");
        lit = now;
        count.textContent = view.size(view.axes);
      }
      for (const cell of before) {
        cell.classList.remove("chosen");
        if (!isGiven(cell)) cell.tabIndex = -1; // not the tab stop any more, but still to be focused
      }
      for (const cell of cellsOf(i)) {
        cell.classList.add("chosen");
        if (!isGiven(cell)) cell.tabIndex = 0;
      }
      chosen = i;
      write(i);
      if (bar) bar.follow();
    }

    function pinTo(i) {
      for (const cell of [...cellsOf(pinned), ...cellsOf(i)]) {
        const on = numberOf(cell) === i;
        cell.classList.toggle("pinned", on);
        if (!isGiven(cell)) cell.ariaSelected = String(on);
      }
      pinned = i;
    }

    function pin(i) {
      pinTo(i === pinned ? null : i);
      if (address !== null) {
        const hash = pinned === null ? "" : `#${address}${shape.place(pinned).join(",")}`;
        history.replaceState(null, "", location.pathname + location.search + hash);
      }
      choose(i);
    }

    function fromAddress() {
      if (address === null || !location.hash.startsWith(`#${address}`)) return;
      const place = location.hash.slice(1 + address.length).split(",").map(Number);
      const inside = place.length === data.shape.length && place.every((k, axis) => k >= 0 && k < data.shape[axis]);
      const i = inside ? shape.number(place) : -1;
      if (shown.includes(i)) { pinTo(i); choose(i); }
    }

    const cellOf = (event) => event.target.closest?.("td[data-i]");
    for (const tensors of all(".tensors")) {
      tensors.addEventListener("pointerover", (event) => { const cell = cellOf(event); if (cell) choose(numberOf(cell)); });
      tensors.addEventListener("focusin", (event) => { const cell = cellOf(event); if (cell) choose(numberOf(cell)); });
      tensors.addEventListener("click", (event) => { const cell = cellOf(event); if (cell) pin(numberOf(cell)); });
      tensors.addEventListener("pointerleave", () => { if (pinned !== null) choose(pinned); });
    }

    const mark = (event, on) => {
      for (const cell of marked) cell.classList.remove("marked");
      const term = on && event.target.closest?.(".term");
      marked = term ? cellsOf(Number(term.dataset.i)).filter(isGiven) : [];
      for (const cell of marked) cell.classList.add("marked");
    };
    trace?.addEventListener("pointerover", (event) => mark(event, true));
    trace?.addEventListener("pointerout", (event) => mark(event, false));

    // The keyboard in a grid: one tab stop, the cells by the arrows.
    for (const grid of grids) {
      const rows = [...grid.rows].map((row) => [...row.querySelectorAll("td[data-i]")]).filter((row) => row.length);
      const where = new Map(rows.flatMap((row, r) => row.map((cell, c) => [cell, [r, c]])));
      grid.addEventListener("keydown", (event) => {
        const cell = cellOf(event);
        if (!cell) return;
        const [r, c] = where.get(cell), whole = event.ctrlKey || event.metaKey;
        const moves = {
          ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c],
          Home: [whole ? 0 : r, 0], End: [whole ? rows.length - 1 : r, rows[0].length - 1],
        };
        if (event.key in moves) {
          const [row, column] = moves[event.key];
          const next = rows[row]?.[column];
          if (next) next.tabIndex = -1;
          next?.focus();
        } else if (event.key === "Enter" || event.key === " ") pin(numberOf(cell));
        else if (event.key === "Escape" && pinned !== null) pin(pinned);
        else return;
        event.preventDefault();
      });
    }

    // Both tensors of a pair show the same region.
    for (const tensors of all(".tensors")) {
      const panes = [...tensors.querySelectorAll(".scroll")];
      for (const pane of panes) pane.addEventListener("scroll", () => {
        for (const other of panes) if (other !== pane) {
          if (other.scrollLeft !== pane.scrollLeft) other.scrollLeft = pane.scrollLeft;
          if (other.scrollTop !== pane.scrollTop) other.scrollTop = pane.scrollTop;
        }
      });
    }

    const bar = whatIf(article, data, {
      chosen: () => chosen,
      words,
      show(found) {
        what = found;
        view = found ? new View(found.program) : own;
        article.classList.toggle("anew", what !== null);
        for (const cell of cells) {
          const text = cell.firstChild; // beside it, what somebody else's answer has there
          cell.exact ??= text.data;
          const name = cell.closest("table").className, i = numberOf(cell);
          text.data = cell.exact;
          cell.classList.remove("changed");
          if (!what) continue;
          if (name === "input" && what.changed.has(i)) {
            text.data = written(what.changed.get(i));
            cell.classList.add("changed");
          }
          if (name in what.texts) text.data = what.texts[name][i];
        }
        if (chosen !== null) choose(chosen, true);
      },
    });
    tabs(article);
    choose(data.first, true);
    fromAddress();
    if (address !== null) addEventListener("hashchange", fromAddress);
    reachable(article);
  }

  // --- the what-if bar ------------------------------------------------------------------------------

  function whatIf(article, data, page) {
    const form = article.querySelector(".whatif");
    if (!form || !data.programs.length) return null;
    const kinds = [...new Set(data.programs.map((program) => program.words))];
    const x = data.tensors.x.map(number), changed = new Map();
    const flow = data.tensors.grad_output && data.tensors.grad_output.map(number);
    const field = (name, control) => element("label", {}, element("span", {}, name), control);
    const select = (values) => element("select", {}, ...values.map((value) => element("option", { value }, value)));
    const amount = (value) => element("input", { type: "number", step: "any", value, required: true });
    const first = data.programs[0];
    const cell = amount(0), kind = select(kinds), eps = amount(written(data.given.eps)), momentum = amount(data.given.m);
    const mode = select(["train", "eval"]), divisor = select(["n", "n - 1"]);
    const back = element("button", { type: "button", disabled: true }, "back to the exact numbers");
    const label = field("", cell);
    eps.min = momentum.min = 0;
    momentum.max = 1;
    cell.required = false;
    const optional = [[field("kind", kind), () => kinds.length > 1],
      [field("eps", eps), () => !data.given.named || "eps" in data.given.named],
      [field("momentum", momentum), () => chosenProgram().updates],
      [field("mode", mode), () => programsOf().some((program) => program.mode === "eval")],
      [field("divide by", divisor), () => programsOf().some((program) => program.ddof !== programsOf()[0].ddof)]];
    const note = element("p", { className: "note" });
    note.setAttribute("aria-live", "polite");
    form.append(element("strong", {}, "what if"), label,
      ...optional.map(([made]) => made), back, note);
    form.setAttribute("aria-label", "what if");
    form.hidden = false;

    const programsOf = () => data.programs.filter((program) => program.words === kind.value);
    function chosenProgram() {
      const fits = (program) => [program.mode === mode.value || !program.mode, program.ddof === (divisor.value === "n" ? 0 : 1)];
      const score = (program) => fits(program).reduce((total, fit, i) => total + (fit ? 2 - i : 0), 0);
      return programsOf().reduce((best, program) => (score(program) > score(best) ? program : best));
    }
    function restore() {
      changed.clear();
      kind.value = first.words;
      mode.value = first.mode || "train";
      divisor.value = first.ddof ? "n - 1" : "n";
      eps.value = written(data.given.eps);
      momentum.value = data.given.m;
      follow();
      offer();
      back.disabled = true;
      note.textContent = "";
      page.show(null);
    }
    function offer() {
      for (const [made, means] of optional) made.hidden = !means();
    }
    function follow() {
      const i = page.chosen() ?? data.first;
      label.firstElementChild.textContent = `x ${page.words(i)}`;
      const value = changed.has(i) ? changed.get(i) : x[i];
      cell.value = Number.isFinite(value) ? written(value) : "";
    }
    function recalculate() {
      offer();
      if (!form.checkValidity()) return;
      const program = chosenProgram(), values = x.map((value, i) => (changed.has(i) ? changed.get(i) : value));
      const elements = calculated(program, data.lines, values, { ...data.given, eps: Number(eps.value), m: Number(momentum.value) }, flow);
      const texts = {};
      for (const name of ["output", "grad_input"]) {
        if (!(name in data.tensors)) continue;
        const found = elements.map((v) => v[name]), way = notation(found, data.precision);
        texts[name] = found.map((value) => decimal(value, way, data.precision));
      }
      back.disabled = false;
      note.textContent = "Worked out here in double precision, by the same lines; not normcli’s exact numbers.";
      page.show({ program, elements, changed, texts });
    }
    cell.addEventListener("input", () => {
      if (cell.value !== "" && cell.checkValidity()) changed.set(page.chosen(), Number(cell.value));
      recalculate();
    });
    for (const control of [kind, mode, divisor, eps, momentum]) control.addEventListener("input", recalculate);
    back.addEventListener("click", restore);
    form.addEventListener("submit", (event) => event.preventDefault());
    kind.value = first.words;
    mode.value = first.mode || "train";
    divisor.value = first.ddof ? "n - 1" : "n";
    offer();
    return { follow: () => { if (cell.getRootNode().activeElement !== cell) follow(); } };
  }

  // --- tabs, and regions that scroll ----------------------------------------------------------------

  function tabs(article) {
    const bar = article.querySelector(".tabs");
    if (!bar) return;
    const panels = [...article.querySelectorAll("[data-tab]")];
    const buttons = panels.map((panel) => element("button", { type: "button" }, panel.dataset.tab));
    const open = (chosen) => panels.forEach((panel, k) => {
      panel.hidden = k !== chosen;
      buttons[k].setAttribute("aria-selected", String(k === chosen));
      buttons[k].tabIndex = k === chosen ? 0 : -1;
    });
    bar.setAttribute("role", "tablist");
    bar.setAttribute("aria-label", "direction");
    panels.forEach((panel, k) => {
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-label", panel.dataset.tab);
      buttons[k].setAttribute("role", "tab");
      buttons[k].addEventListener("click", () => open(k));
    });
    bar.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (buttons.indexOf(event.target) + step + buttons.length) % buttons.length;
      open(next);
      buttons[next].focus();
    });
    bar.append(...buttons);
    bar.hidden = false;
    open(Math.max(0, panels.findIndex((panel) => panel.querySelector(".wrong"))));
  }

  // What scrolls and holds nothing to focus is reached by Tab itself.
  function reachable(article) {
    for (const pane of article.querySelectorAll(".scroll")) {
      const scrolls = pane.scrollWidth > pane.clientWidth || pane.scrollHeight > pane.clientHeight;
      if (!scrolls || pane.querySelector("[tabindex]")) continue;
      pane.tabIndex = 0;
      pane.setAttribute("role", "region");
      pane.setAttribute("aria-label", pane.querySelector("table").getAttribute("aria-label") || pane.querySelector("caption").textContent);
    }
  }

  // --- on a page, or in a notebook in a shadow root of its own --------------------------------------

  document.querySelectorAll(".normcli-page .normcli").forEach((article, k) => start(article, k ? `${k + 1}:` : ""));
  for (const host of document.querySelectorAll(".normcli-fragment:not([data-ready])")) {
    host.dataset.ready = "";
    const root = host.attachShadow({ mode: "open" });
    root.append(...host.childNodes);
    root.querySelectorAll(".normcli").forEach((article) => start(article, null));
  }
})([
/* the lines */]);
