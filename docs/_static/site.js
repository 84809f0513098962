// One button per page opens or closes all folded sources; boxes that scroll can be reached by keyboard;
// what folds in the side bar has a name; a figure shown smaller than it is opens in full size.
document.addEventListener("DOMContentLoaded", () => {
  const sources = [...document.querySelectorAll("div.cell.tag_source details")];
  const origin = document.querySelector("p.origin");
  if (origin && sources.length) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "show-sources";
    const show = (open) => {
      sources.forEach((d) => { d.open = open; });
      button.setAttribute("aria-pressed", open);
      button.textContent = open ? "Hide all source" : "Show all source";
      try { localStorage.setItem("paper_digest_sources", open ? "1" : ""); } catch { /* private window */ }
    };
    let open = false;
    try { open = localStorage.getItem("paper_digest_sources") === "1"; } catch { /* private window */ }
    show(open);
    button.addEventListener("click", () => show(button.getAttribute("aria-pressed") !== "true"));
    origin.append(" ", button);
  }
  document.querySelectorAll("article pre, article .output.text_html, article .pst-scrollable-table-container").forEach((box) => {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  });
  document.querySelectorAll(".bd-sidenav li.has-children > details > summary").forEach((fold) => {  // the theme shows an arrow only
    fold.setAttribute("aria-label", `Pages of ${fold.closest("li").querySelector("a").textContent.trim()}`);
  });
  document.querySelectorAll("article img").forEach((img) => {
    const wrap = () => {
      if (img.closest("a") || img.naturalWidth < img.clientWidth * 1.15) return;
      const link = document.createElement("a");
      link.href = img.src;
      link.className = "full-size";
      link.title = "Full size";
      img.replaceWith(link);
      link.append(img);
    };
    if (img.complete) wrap(); else img.addEventListener("load", wrap);
  });
});
