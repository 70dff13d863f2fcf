/* What pages do without the server: addresses that follow what is shown, CSV, cells of the grids.

   Belongs here: clientside callbacks and cell renderers. Does not belong: pixels (viewer.js). */
(function () {
    "use strict";

    const clientside = (window.dash_clientside = window.dash_clientside || {});
    const same = () => window.dash_clientside.no_update;

    /* Puts values into the address without loading anything; null takes one away. */
    function remember(values) {
        const query = new URLSearchParams(window.location.search);
        for (const [name, value] of Object.entries(values)) {
            if (value === null || value === undefined || value === "") {
                query.delete(name);
            } else {
                query.set(name, value);
            }
        }
        const text = query.toString();
        window.history.replaceState(window.history.state, "", window.location.pathname + (text ? `?${text}` : ""));
    }

    const MAX_KEPT = 50;
    const short = (value) => Number(value.toPrecision(4));

    /* Numbers on a scale; domains and colours of PCA have none. */
    const isScore = (layer) => Boolean(layer) && layer !== "none" && !layer.startsWith("domain:") && layer !== "pca";

    /* Corners of a line or a box that Plotly tells of; of a long line some 60. */
    function around(selected) {
        if (selected.range) {
            const { x, y } = selected.range;
            return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([i, j]) => [x[i], y[j]]);
        }
        const { x, y } = selected.lassoPoints;
        const every = Math.max(1, Math.ceil(x.length / 60));
        return x.map((value, i) => [value, y[i]]).filter((_, i) => i % every === 0);
    }

    clientside.pathassets = {
        /* A page has come: its title, menus that send their form, Ctrl+Enter in the SQL box. */
        arrive: () => {
            setTimeout(() => {
                const title = document.querySelector("main h1, main h2");
                document.title = title ? `${title.textContent} – pathassets` : "pathassets";
                document.querySelectorAll("select.auto").forEach((menu) => {
                    menu.onchange = () => menu.form.submit();
                });
                const box = document.getElementById("sql-text");
                if (box) {
                    box.onkeydown = (event) => {
                        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                            document.getElementById("sql-ask").click();
                        }
                    };
                }
            }, 0);
            return same();
        },

        draw: (figure, facts, opacity, layer, image) => {
            ["least", "scale"].forEach((name) => {
                document.getElementById(name).hidden = !isScore(layer);
            });
            if (facts) {
                window.pathassetsViewer.start(facts);
            }
            window.pathassetsViewer.picture(!image || image.length > 0);
            const graph = window.pathassetsViewer.graph();
            const first = graph && graph.data && graph.data[0];
            if (first && (first.type === "heatmap" || first.type === "image") && first.hoverinfo === "skip" && first.opacity !== opacity / 100) {
                window.Plotly.restyle(graph, { opacity: opacity / 100 }, [0]);
            }
            return same();
        },

        /* What was drawn around tiles, on the map or on the slide (level-0 px): the last line drawn counts. */
        lasso: (onMap, onSlide, facts, before) => {
            const trigger = window.dash_clientside.callback_context.triggered[0];
            const on = trigger && trigger.prop_id.startsWith("slide-graph") ? "slide" : "map";
            const selected = on === "slide" ? onSlide : onMap;
            if (selected && !selected.lassoPoints && !selected.range) {
                return same(); // Plotly tells what lies in a line that came with the figure, without the line
            }
            if (!selected) {
                return before && before.on === on ? null : same(); // the line that is no more is not the one that counts
            }
            const unit = facts.mpp || 1;
            const write = on === "slide" ? (value) => Math.round(value / unit) : short;
            const drawn = { on, corners: around(selected).map((corner) => corner.map(write)) };
            return JSON.stringify(drawn) === JSON.stringify(before) ? same() : drawn;
        },

        clear: (clicks) => {
            const graph = document.querySelector("#slide-map .js-plotly-plot");
            if (clicks && graph) {
                window.Plotly.update(graph, { selectedpoints: null }, { selections: [] });
            }
            return clicks ? [null, null, null] : [same(), same(), same()];
        },

        remember_slide: (view, layer, scale, opacity, least, outline, method, piece, image, tile, lasso) => {
            const score = isScore(layer);
            remember({
                view, layer, opacity, method, tile,
                scale: score ? scale : null,
                least: (score && least) || null,
                outline: outline && outline.length ? null : "off",
                image: image && image.length ? null : "off",
                piece: piece === "all" ? null : piece,
                lasso: lasso ? (lasso.on === "slide" ? "slide:" : "") + lasso.corners.map((corner) => corner.join(",")).join(";") : null,
            });
            return same();
        },

        find: (text, options) => {
            remember({ q: text });
            return { ...options, quickFilterText: text || "" };
        },

        /* How many rows the filters leave. */
        count: (shown, all) => {
            const [n, of] = [(shown || []).length, (all || []).length];
            return `${n === of ? "" : `${n} of `}${of} ${of === 1 ? "slide" : "slides"}`;
        },

        csv: (clicks) => (clicks ? true : same()),

        remember_grid: (filters, columns) => {
            const sorted = (columns || []).find((column) => column.sort);
            remember({
                filter: filters && Object.keys(filters).length ? JSON.stringify(filters) : null,
                sort: sorted ? `${sorted.colId}:${sorted.sort}` : null,
            });
            return same();
        },

        choose_slide: (click) => {
            const point = click && click.points && click.points[0];
            if (point && point.customdata) {
                const query = new URLSearchParams(window.location.search);
                query.set("slide", point.customdata);
                window.location.search = query.toString();
            }
            return same();
        },
    };

    /* A search that is not over: the next lot, from where it stands. */
    clientside.pathassets.go_on = (found, asked) => {
        if (found && asked) {
            window.dash_clientside.set_props("search-next", { data: { ...asked, found } });
        }
        return same();
    };

    /* -- the SQL page ---------------------------------------------------------------------------------------------- */

    const tag = (name, text, inside = []) => {
        const made = document.createElement(name);
        made.textContent = text || "";
        made.append(...inside);
        return made;
    };

    /* What stands in backticks is what one types. */
    const told = (text) => String(text || "").split("`").map((part, i) => tag(i % 2 ? "code" : "span", part));

    /* Names and types of all columns, each as text: Dash makes nothing of them. */
    clientside.pathassets.list_tables = (tables) => {
        const row = (kind, cells) => tag("tr", "", cells.map((cell) => tag(kind, "", told(cell))));
        const entries = (tables || []).map(([name, about, columns]) => {
            const table = tag("table", "", [row("th", ["Column", "Type", "Meaning"]), ...columns.map((column) => row("td", column))]);
            table.className = "small";
            const wide = tag("div", "", [table]);
            wide.className = "wide";
            const quiet = tag("span", "", told(about));
            quiet.className = "quiet";
            return tag("details", "", [tag("summary", "", [tag("code", name), " ", quiet]), wide]);
        });
        document.getElementById("sql-tables").replaceChildren(...entries);
        return same();
    };

    clientside.pathassets.asked = (clicks, text) => {
        remember({ q: text });
        return same();
    };

    /* The newest first; the same words are kept once. */
    clientside.pathassets.keep_question = (save, forget, text, kept) => {
        const others = (Array.isArray(kept) ? kept : []).filter((other) => other !== text);
        const wanted = (text || "").trim() && window.dash_clientside.callback_context.triggered_id === "sql-save";
        return (wanted ? [text, ...others] : others).slice(0, MAX_KEPT);
    };

    clientside.pathassets.list_questions = (when, kept) => {
        const list = document.getElementById("sql-saved");
        const chips = (Array.isArray(kept) ? kept : []).map((text) => {
            const line = String(text).replace(/\s+/g, " ").trim();
            const chip = tag("a", line.length > 60 ? `${line.slice(0, 59)}…` : line);
            chip.className = "chip";
            chip.title = text;
            chip.href = `/sql?${new URLSearchParams({ q: text })}`;
            return chip;
        });
        list.replaceChildren(...(chips.length ? [tag("span", "Saved in this browser: "), ...chips] : []));
        return same();
    };

    clientside.pathassets.choose_tile = (click) => {
        const found = click && click.points && click.points[0] && click.points[0].customdata;
        if (found) {
            const view = document.querySelector("select[name=recipe]");
            const query = new URLSearchParams({ tile: found[1], ...(view ? { view: view.value } : {}) });
            window.location.assign(`/slide/${encodeURIComponent(found[0])}?${query}`);
        }
        return same();
    };

    window.pathassets = { remember };

    /* -- cells ----------------------------------------------------------------------------------------------------- */

    const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
    functions.shortNumber = (value) =>
        value === null || value === undefined ? "" : Number(Number(value).toPrecision(4)).toLocaleString("en");
    /* A cell that begins like a formula is text for programs that calculate. */
    functions.plainCell = (params) => {
        const text = params.value === null || params.value === undefined ? "" : String(params.value);
        return /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    };

    /* Arrows go from cell to cell; Enter follows the link of the one in focus, which only a mouse would reach otherwise. */
    document.addEventListener("keydown", (event) => {
        const cell = event.key === "Enter" && document.activeElement ? document.activeElement.closest(".ag-cell") : null;
        const link = cell && cell.querySelector("a");
        if (link && document.activeElement === cell) {
            link.click();
        }
    });

    const element = (...parts) => window.React.createElement(...parts);
    const elsewhere = { target: "_blank", rel: "noopener" };
    const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
    cells.Thumbnail = (props) =>
        props.data.thumbnail
            ? element("img", { src: `/picture/${props.value}/thumbnail.jpg?side=160`, alt: "", loading: "lazy", className: "thumb" })
            : "";
    cells.SlideLink = (props) =>
        element("a", { href: `/slide/${props.value}` + (props.view ? `?view=${encodeURIComponent(props.view)}` : "") }, props.value);
    cells.Reason = (props) =>
        props.value ? element("span", { className: "is-flagged" }, String(props.value).replaceAll("_", " ")) : "";
    cells.Status = (props) => {
        const text = props.value || "not tried";
        const shown = { className: `is-${text.split(":")[0].replace(" ", "-")}`, title: text };
        if (props.value && props.asset) {
            const href = `${props.asset}?view=partitions&partition=${encodeURIComponent(props.data.slide_id)}`;
            return element("a", { ...shown, ...elsewhere, href, title: `${text}, in Dagster` }, text.replaceAll("_", " "));
        }
        return element("span", shown, text.replaceAll("_", " "));
    };
    cells.Run = (props) =>
        props.value ? element("a", { ...elsewhere, href: props.runs + encodeURIComponent(props.value), title: "in Dagster" }, props.value.slice(0, 8)) : "";
})();
