// What the page needs beside Vue: files to the server and back, and keys.
(() => {
  const set = (name, value) => window.trame.state.set(name, value);
  const send = (files) => {
    if (!files.length) return;
    const form = new FormData();
    for (const file of files) form.append("file", file, file.webkitRelativePath || file.name);
    const request = new XMLHttpRequest();
    request.upload.onprogress = (e) => set("upload_percent", Math.round((100 * e.loaded) / e.total));
    request.onloadend = () => set("upload_percent", 0);
    request.open("POST", "upload");
    request.send(form);
  };
  const pick = (kind) => {
    const input = document.createElement("input");
    input.type = "file";
    input.multiple = true;
    input.webkitdirectory = kind === "folder";
    input.onchange = () => send([...input.files]);
    input.click();
  };
  const download = async (kind) => {
    const answer = await fetch(`download/${kind}`);
    if (!answer.ok) return; // the page's notices say why
    const named = /filename\*=UTF-8''(.+)$/.exec(answer.headers.get("Content-Disposition") || "");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = named ? decodeURIComponent(named[1]) : kind;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const end = async () => {
    await fetch("end", { method: "POST" });
    window.location.assign("/"); // which says that it is over
  };
  const register = () => {
    if (!window.trame) return setTimeout(register, 20);
    window.trame.utils.apformer = { pick, download, end };
  };
  register();
  // When the connection is lost, trame takes the page away: the server then says why, or leads back into the session.
  let drawn = false;
  setInterval(async () => {
    const there = document.querySelector(".page") !== null;
    if (drawn && !there && (await fetch("favicon.ico").catch(() => null))?.ok) window.location.assign("/");
    drawn ||= there;
  }, 1500);
  // What comes without words: the pictures of views, beside which their name stands, and the ends of a range.
  const name = () => {
    for (const end of document.querySelectorAll(".v-range-slider .v-slider-thumb:not([aria-label])")) {
      const first = end.parentElement.querySelector(".v-slider-thumb") === end;
      end.setAttribute("aria-label", first ? "Lowest value" : "Highest value");
    }
    for (const picture of document.querySelectorAll(".layout-grid-item img:not([alt])")) {
      const view = picture.closest(".layout-grid-item").querySelector(".view-name");
      picture.alt = view ? `${view.textContent} view` : "View";
    }
  };
  let naming = 0; // words in the views change many times a second
  const nameSoon = () => (naming ||= setTimeout(() => ((naming = 0), name()), 200));
  new MutationObserver(nameSoon).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("dragover", (e) => e.preventDefault());
  document.addEventListener("drop", (e) => {
    e.preventDefault();
    send([...e.dataTransfer.files]);
  });
  const KEYS = /^([0-9]|[snmfdyaukpectirwxhl?\[\]]|Escape|ArrowUp|ArrowDown)$/;
  const MOVES = /^(Arrow|Home|End|Page)/; // a slider or a closed list that has the focus takes these, and no others
  const isTyped = (e) => {
    if (e.target.closest("[role=listbox], [role=menu]")) return true;
    if (e.target.closest(".v-select [aria-expanded=false], [role=slider]")) return MOVES.test(e.key);
    return e.target.closest("input:not([type=checkbox]), textarea") !== null;
  };
  const onKey = (e) => {
    const key = e.ctrlKey ? `Control+${e.key}` : e.key;
    if (isTyped(e) || e.altKey || e.metaKey || !(KEYS.test(key) || /^Control\+[zy]$/.test(key))) return;
    e.preventDefault();
    if (e.target.closest(".v-select")) e.stopPropagation(); // else it goes to what begins with the letter
    window.trame.trigger("key", [key]);
  };
  document.addEventListener("keydown", onKey, true);
})();
