// Brings the figures of a page up to date for as long as it shows a job that runs.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
    const shown = document.getElementById("claude-batch-live");
    const address = new URL(window.location.href);
    address.searchParams.set("live", "");

    async function refresh() {
        const begun = Date.now();
        if (!document.hidden) {
            try {
                const answer = await fetch(address, {redirect: "manual"});
                if (answer.type === "opaqueredirect") {
                    return; // logged out
                }
                if (answer.ok) {
                    shown.innerHTML = await answer.text();
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

    later(0);
});
