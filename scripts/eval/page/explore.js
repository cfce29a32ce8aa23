"use strict";
(() => {
  const query = document.getElementById("query");
  const said = document.getElementById("said");
  let latest = 0;

  function passage(result, place) {
    const box = document.createElement("div");
    box.className = result.relevant ? "passage gold" : "passage";
    const rank = document.createElement("p");
    rank.className = "rank";
    rank.textContent = `${place + 1}. ${result.passage}, score ${result.score}${result.relevant ? ", relevant" : ""}`;
    const text = document.createElement("p");
    text.innerHTML = result.html; // escaped by the server, marks apart
    box.append(rank, text);
    return box;
  }

  async function search(event) {
    event.preventDefault();
    const mine = ++latest;
    said.textContent = "searching …";
    try {
      const answer = await fetch(`/search?q=${encodeURIComponent(query.value)}`);
      const found = await answer.json();
      if (mine !== latest) return;
      if (!answer.ok) throw new Error(found.error);
      for (const [system, part] of Object.entries(found.systems)) {
        const place = document.getElementById(`of-${system}`);
        const passages = part.results.map(passage);
        if (!passages.length) passages.push("nothing found");
        place.replaceChildren(...passages);
      }
      const times = Object.entries(found.systems).map(([system, part]) => `${system} ${part.milliseconds} ms`);
      said.textContent = times.join(", ") + (found.judged ? "" : "; not a query of the test set, so nothing is judged");
    } catch (error) {
      if (mine === latest) said.textContent = `failed: ${error.message}`;
    }
  }

  document.getElementById("filter").addEventListener("submit", search);
})();
