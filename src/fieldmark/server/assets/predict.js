// Sends a photo to be named, and shows what it was named.
"use strict";
(() => {
  const form = document.getElementById("naming-form");
  const [photo, preview, said, guesses] = ["photo", "preview", "said", "guesses"].map((id) =>
    document.getElementById(id),
  );

  async function name(file) {
    const answer = await fetch("/predict", { method: "POST", body: file });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = photo.files;
    guesses.replaceChildren();
    if (file.size > form.dataset.most * 2 ** 20) {
      said.textContent = form.dataset.large;
      return;
    }
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    preview.hidden = false;
    said.textContent = form.dataset.wait;
    try {
      const found = await name(file);
      said.textContent = "";
      for (const { name, probability } of found) {
        const line = document.createElement("li");
        line.textContent = `${name}: ${(100 * probability).toFixed(1)} %`;
        guesses.append(line);
      }
    } catch (error) {
      said.textContent = error.message;
    }
  });
})();
