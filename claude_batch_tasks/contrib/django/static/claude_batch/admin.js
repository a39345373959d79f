// Brings the figures of a page up to date for as long as it shows a job that runs.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
    const shown = document.getElementById("claude-batch-live");
    const address = new URL(window.location.href);
    address.searchParams.set("live", "");
    let pressed = false; // a click on what is replaced in the middle of it goes nowhere

    function boxes() {
        return Array.from(shown.querySelectorAll("input[name=job]"));
    }

    function show(content) {
        const selected = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
        const focused = shown.contains(document.activeElement) ? document.activeElement : null;
        shown.innerHTML = content; // the server has escaped every text in it
        for (const box of boxes()) {
            box.checked = selected.has(box.value);
        }
        offerAll();
        if (focused !== null) {
            const same = (each) => each.href === focused.href && each.value === focused.value;
            Array.from(shown.querySelectorAll("a, input")).find(same)?.focus();
        }
    }

    function offerAll() {
        const all = shown?.querySelector("thead input[type=checkbox]");
        if (all) {
            all.hidden = boxes().length === 0;
            all.checked = !all.hidden && boxes().every((box) => box.checked);
            all.addEventListener("change", () => boxes().forEach((box) => (box.checked = all.checked)));
        }
    }

    async function refresh() {
        const begun = Date.now();
        if (!document.hidden) {
            try {
                const answer = await fetch(address, {redirect: "manual"});
                if (answer.type === "opaqueredirect") {
                    return; // logged out
                }
                const content = await answer.text();
                if (answer.ok && !pressed) {
                    show(content);
                }
            } catch {
                // The server is away for a moment.
            }
        }
        later(Date.now() - begun);
    }

    function later(took) {
        if (shown?.querySelector("[data-live]")) {
            setTimeout(refresh, Math.max(2000, 10 * took)); // a large job's page is asked for less often
        }
    }

    shown?.addEventListener("pointerdown", () => (pressed = true));
    for (const end of ["pointerup", "pointercancel"]) {
        document.addEventListener(end, () => setTimeout(() => (pressed = false))); // the click comes before that
    }
    offerAll();
    later(0);
});
