// While a page has a part that is still open, fetch the page again and put in what has changed.
// Without this module everything works: the page has a link that looks again.
const LOOK_AGAIN = 1000;

async function look() {
  if (!document.querySelector("[data-part][data-open]")) return;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href);
      if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // The server is away for a moment; the next look will tell.
    }
  }
  setTimeout(look, LOOK_AGAIN);
}

function show(fresh) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const twin = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!twin) continue;
    // The element stays, so that focus and live regions survive.
    if (part.innerHTML !== twin.innerHTML) part.replaceChildren(...twin.childNodes);
    part.toggleAttribute("data-open", twin.hasAttribute("data-open"));
  }
}

setTimeout(look, LOOK_AGAIN);
