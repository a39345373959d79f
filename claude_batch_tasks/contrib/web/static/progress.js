// Brings the page up to date while it is open, and shows moments in the viewer's own time.
"use strict";

(() => {
    const view = document.getElementById("view");
    const trouble = document.getElementById("trouble");
    let stream = null;
    let next = null; // what came while a text was selected, or in the middle of a click, which would go nowhere
    let pressed = false;
    let over = false;

    function showMoments() {
        for (const moment of view.querySelectorAll("time")) {
            const date = new Date(moment.dateTime);
            const two = (number) => String(number).padStart(2, "0");
            const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
            moment.title = moment.textContent;
            moment.textContent = `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
        }
    }

    function isSelecting() {
        const selection = document.getSelection();
        return selection !== null && !selection.isCollapsed && view.contains(selection.anchorNode);
    }

    function showNext() {
        if (next !== null && !pressed && !isSelecting()) {
            showPage(next);
        }
    }

    function showPage(page) {
        if (pressed || isSelecting()) {
            next = page;
            return;
        }
        next = null;
        const focused = view.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const scrolled = Array.from(view.querySelectorAll(".wide"), (wide) => wide.scrollLeft);
        view.innerHTML = page.content; // the server has escaped every text in it
        document.title = `${page.title} · ${view.dataset.heading}`;
        showMoments();
        view.querySelectorAll(".wide").forEach((wide, number) => {
            wide.scrollLeft = scrolled[number] ?? 0;
        });
        if (focused !== null) {
            Array.from(view.querySelectorAll("a")).find((link) => link.getAttribute("href") === focused)?.focus();
        }
    }

    function showTrouble(text) {
        trouble.textContent = text ?? "";
        trouble.hidden = text === null;
    }

    function close() {
        stream?.close();
        stream = null;
    }

    function open() {
        if (stream !== null || over || document.hidden || !view.dataset.stream) {
            return;
        }
        stream = new EventSource(view.dataset.stream);
        stream.addEventListener("page", (event) => {
            showTrouble(null);
            showPage(JSON.parse(event.data));
        });
        stream.addEventListener("trouble", (event) => showTrouble(JSON.parse(event.data)));
        stream.addEventListener("end", () => {
            over = true;
            close();
        });
        stream.addEventListener("error", () => {
            if (stream?.readyState === EventSource.CLOSED) { // else the browser tries again by itself
                close();
                showTrouble("This page is not brought up to date any more. Reload it; perhaps you are logged out.");
                setTimeout(open, 15000);
            }
        });
    }

    showMoments();
    open();
    // A browser opens few connections to a server: a page that nobody sees gives its own back.
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    document.addEventListener("selectionchange", showNext);
    view.addEventListener("pointerdown", () => (pressed = true));
    for (const end of ["pointerup", "pointercancel"]) {
        document.addEventListener(end, () =>
            setTimeout(() => { // the click comes before that
                pressed = false;
                showNext();
            }),
        );
    }
})();
