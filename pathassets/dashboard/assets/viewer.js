/* The slide's pixels below Plotly's figure: a canvas that shows tiles of the pyramid wherever Plotly's axes are.

   Belongs here: pixels, scale bar, keys, the part of the slide that the address remembers. Does not belong: what lies over
   the pixels (Plotly draws it), anything that the server decides.
   Axes are in µm, or in px where a slide's resolution is unknown; `facts` comes from pages/slide.py. */
(function () {
    "use strict";

    const MAX_TILES = 600; // about 160 MB of decoded pixels
    const AT_ONCE = 8;
    const REMEMBER_AFTER_MS = 250;
    const NOTCH = 1.5; // the view grows or shrinks so much with a notch of the wheel
    const LEAST_PX = 16;
    const OUT_TIMES = 3;
    const NARROW_PX = 600;
    const LEGEND_PX = 190;
    let facts = null;
    let graph = null;
    let thumbnail = null;
    let tiles = new Map(); // address -> image; the least recently drawn first
    let wanted = [];
    let loading = 0;
    let turned = 0; // notches that are not shown yet
    let turning = 0;
    let timer = 0;
    let pictured = true; // whether the slide itself is shown below what lies over it

    const canvas = () => document.getElementById("slide-canvas");
    const unit = () => facts.mpp || 1;
    const address = (level, column, row) => `/picture/${facts.slide}/${level}/${column}_${row}.jpg`;

    /* Where the plot lies on the canvas, and which part of the slide (level-0 px) it shows. */
    function seen() {
        const full = graph && graph._fullLayout;
        if (!full || !full.xaxis || !full.yaxis || !full.xaxis._length) {
            return null;
        }
        const [x0, x1] = full.xaxis.range.map((v) => v / unit());
        const [y1, y0] = full.yaxis.range.map((v) => v / unit());
        const at = { left: full.xaxis._offset, top: full.yaxis._offset, width: full.xaxis._length, height: full.yaxis._length };
        return { x0, x1, y0, y1, ...at, scale: at.width / (x1 - x0) };
    }

    /* The coarsest level whose pixels are no larger than the screen's. */
    function levelFor(view) {
        const ratio = 1 / (view.scale * (window.devicePixelRatio || 1));
        return Math.min(facts.levels - 1, Math.max(0, Math.floor(Math.log2(ratio) + 0.1)));
    }

    /* Columns and rows of a level that the view touches. */
    function touched(view, level) {
        const side = facts.tile * 2 ** level;
        const last = (extent) => Math.ceil(extent / side) - 1;
        return {
            side,
            c0: Math.max(0, Math.floor(view.x0 / side)),
            c1: Math.min(last(facts.width), Math.floor(view.x1 / side)),
            r0: Math.max(0, Math.floor(view.y0 / side)),
            r1: Math.min(last(facts.height), Math.floor(view.y1 / side)),
        };
    }

    function draw() {
        const view = facts && seen();
        const surface = canvas();
        if (!view || !surface) {
            return;
        }
        const context = prepare(surface);
        context.save();
        context.beginPath();
        context.rect(view.left, view.top, view.width, view.height);
        context.clip();
        if (pictured) {
            place(context, view, thumbnail, 0, 0, facts.width, facts.height);
        }
        if (pictured && facts.pixels) {
            drawTiles(context, view);
        }
        context.restore();
        drawBar(view);
        due = false;
    }

    function prepare(surface) {
        const ratio = window.devicePixelRatio || 1;
        const box = surface.parentElement.getBoundingClientRect();
        const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
        if (surface.width !== width || surface.height !== height) {
            surface.width = width;
            surface.height = height;
        }
        const context = surface.getContext("2d");
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, box.width, box.height);
        return context;
    }

    /* An image that shows the rectangle (level-0 px). Pixels of the slide itself stay squares when they are large. */
    function place(context, view, image, x, y, width, height) {
        if (!image || !image.complete || !image.naturalWidth) {
            return;
        }
        context.imageSmoothingEnabled = view.scale < 3;
        const left = view.left + (x - view.x0) * view.scale;
        const top = view.top + (y - view.y0) * view.scale;
        context.drawImage(image, left, top, width * view.scale, height * view.scale);
    }

    /* Coarse levels first, as far as they are here: a place is never empty while its fine tiles are on their way. */
    function drawTiles(context, view) {
        const finest = levelFor(view);
        const missing = [];
        for (let level = Math.min(facts.levels - 1, finest + 4); level >= finest; level--) {
            const at = touched(view, level);
            for (let row = at.r0; row <= at.r1; row++) {
                for (let column = at.c0; column <= at.c1; column++) {
                    const name = address(level, column, row);
                    const image = tiles.get(name);
                    const [x, y] = [column * at.side, row * at.side];
                    const [w, h] = [Math.min(at.side, facts.width - x), Math.min(at.side, facts.height - y)];
                    if (image) {
                        tiles.delete(name);
                        tiles.set(name, image);
                        place(context, view, image, x, y, w, h);
                    } else if (level === finest || level === finest + 2) {
                        const off = Math.hypot(x + w / 2 - (view.x0 + view.x1) / 2, y + h / 2 - (view.y0 + view.y1) / 2);
                        missing.push({ name, off: level > finest ? off / 4 : off });
                    }
                }
            }
        }
        wanted = missing.sort((a, b) => a.off - b.off).map((item) => item.name);
        load();
    }

    function load() {
        while (loading < AT_ONCE && wanted.length) {
            const name = wanted.shift();
            if (tiles.has(name)) {
                continue;
            }
            const image = new Image();
            const done = () => {
                loading -= 1;
                load();
                soon();
            };
            tiles.set(name, image);
            loading += 1;
            image.onload = done;
            image.onerror = done;
            image.src = name;
        }
        while (tiles.size > MAX_TILES) {
            tiles.delete(tiles.keys().next().value);
        }
    }

    let asked = 0;
    let due = true; // something has changed that is not drawn yet
    function soon() {
        due = true;
        cancelAnimationFrame(asked);
        asked = requestAnimationFrame(draw);
    }

    function drawBar(view) {
        const line = document.getElementById("slide-bar-line");
        const text = document.getElementById("slide-bar-text");
        if (!line || !text) {
            return;
        }
        const perPx = unit() / view.scale;
        const longest = 140 * perPx;
        const power = 10 ** Math.floor(Math.log10(longest));
        const length = [5, 2, 1].map((step) => step * power).find((value) => value <= longest) || power;
        line.style.width = `${length / perPx}px`;
        const big = facts.mpp && length >= 1000;
        text.textContent = `${+(big ? length / 1000 : length).toPrecision(3)} ${facts.mpp ? (big ? "mm" : "µm") : "px"}`;
    }

    /* -- moving -------------------------------------------------------------------------------------------------- */

    function show(x, y, width) {
        const view = seen();
        if (!view || !window.Plotly) {
            return;
        }
        width = within(view, width);
        const height = (width * view.height) / view.width;
        const x0 = (x - width / 2) * unit();
        const y0 = (y - height / 2) * unit();
        window.Plotly.relayout(graph, {
            "xaxis.range": [x0, x0 + width * unit()],
            "yaxis.range": [y0 + height * unit(), y0],
        });
    }

    /* A width (level-0 px) between a few pixels and the whole slide with room around it. */
    function within(view, width) {
        const [all, tall] = [facts.all.x[1] / unit(), facts.all.y[0] / unit()];
        return Math.min(Math.max(width, LEAST_PX), OUT_TIMES * Math.max(all, (tall * view.width) / view.height));
    }

    /* A notch is a step one sees; what is below the mouse stays there. Several notches within a frame are one. */
    function wheel(event) {
        const view = facts && seen();
        if (!view) {
            return;
        }
        event.preventDefault();
        event.stopPropagation();
        turned += (event.deltaY * (event.deltaMode ? 33 : 1)) / 100;
        const box = graph.getBoundingClientRect();
        const [left, top] = [(event.clientX - box.left - view.left) / view.width, (event.clientY - box.top - view.top) / view.height];
        cancelAnimationFrame(turning);
        turning = requestAnimationFrame(() => zoom(left, top));
    }

    function zoom(left, top) {
        const view = seen();
        if (!view) {
            return;
        }
        const [before, high] = [view.x1 - view.x0, view.y1 - view.y0];
        const after = within(view, before * NOTCH ** turned);
        turned = 0;
        const [x, y] = [view.x0 + left * before, view.y0 + top * high];
        show(x + (0.5 - left) * after, y + (0.5 - top) * ((high * after) / before), after);
    }

    function showAll() {
        window.Plotly.relayout(graph, { "xaxis.range": [0, room()], "yaxis.range": facts.all.y });
    }

    /* Where the whole view ends on the right: in a narrow window the legend needs more of it to cover nothing. */
    function room() {
        const view = seen();
        const wide = view ? view.width / Math.max(view.width - LEGEND_PX, 100) : 1;
        return Math.max(facts.all.x[1], facts.width * unit() * wide);
    }

    function key(event) {
        const view = facts && seen();
        if (!view || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, button, a")) {
            return;
        }
        const [x, y, width] = [(view.x0 + view.x1) / 2, (view.y0 + view.y1) / 2, view.x1 - view.x0];
        const step = width / 6;
        const moves = {
            ArrowLeft: () => show(x - step, y, width),
            ArrowRight: () => show(x + step, y, width),
            ArrowUp: () => show(x, y - step, width),
            ArrowDown: () => show(x, y + step, width),
            "+": () => show(x, y, width / 1.5),
            "=": () => show(x, y, width / 1.5),
            "-": () => show(x, y, width * 1.5),
            0: showAll,
            Enter: () => take(x, y),
        };
        if (moves[event.key]) {
            event.preventDefault();
            moves[event.key]();
        }
    }

    function take(x, y) {
        const point = { x: x * unit(), y: y * unit(), curveNumber: 0 };
        window.dash_clientside.set_props("slide-graph", { clickData: { points: [point] } });
    }

    /* -- beginning ----------------------------------------------------------------------------------------------- */

    function remember() {
        clearTimeout(timer);
        timer = setTimeout(() => {
            const view = facts && seen();
            if (view && document.body.contains(graph)) {
                const middle = { x: (view.x0 + view.x1) / 2, y: (view.y0 + view.y1) / 2, w: view.x1 - view.x0 };
                window.pathassets.remember(Object.fromEntries(Object.entries(middle).map(([k, v]) => [k, Math.max(0, Math.round(v))])));
            }
        }, REMEMBER_AFTER_MS);
    }

    function attach(found) {
        graph = found;
        graph.on("plotly_relayouting", soon);
        graph.on("plotly_afterplot", soon);
        graph.on("plotly_relayout", () => {
            soon();
            remember();
        });
        const viewer = document.getElementById("slide-viewer");
        viewer.addEventListener("keydown", key);
        viewer.addEventListener("wheel", wheel, { capture: true, passive: false });
        thumbnail = new Image();
        thumbnail.onload = soon;
        if (facts.thumbnail) {
            thumbnail.src = `/picture/${facts.slide}/thumbnail.jpg`;
        }
        if (facts.seen) {
            show(facts.seen.x, facts.seen.y, facts.seen.w);
        } else if (seen() && seen().width < NARROW_PX) {
            showAll();
        }
        soon();
    }

    /* Plotly draws later than Dash says that there is a figure. */
    function start(given, tries) {
        const found = document.querySelector("#slide-graph .js-plotly-plot");
        if (!found || !found._fullLayout || !found._fullLayout.xaxis || !found.on) {
            if (tries > 0) {
                setTimeout(() => start(given, tries - 1), 50);
            }
            return;
        }
        if (!facts || facts.slide !== given.slide) {
            tiles = new Map();
        }
        facts = given;
        if (found !== graph) {
            attach(found);
        }
        soon();
    }

    window.addEventListener("resize", soon);
    window.pathassetsViewer = {
        start: (given) => start(given, 200),
        picture: (shown) => {
            pictured = shown;
            wanted = [];
            soon();
        },
        /* Whether all that the view wants is here and drawn: tests wait for it. */
        settled: () => Boolean(facts && seen() && !loading && !wanted.length && !due),
        graph: () => graph,
    };
})();
