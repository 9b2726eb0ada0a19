// Starts Swagger UI on the page at /docs. A file of its own: the content security policy forbids scripts in the page.

for (const place of document.querySelectorAll(".address")) {
  place.textContent = location.origin;
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
const followColorScheme = () => document.documentElement.classList.toggle("dark-mode", darkness.matches);
darkness.addEventListener("change", followColorScheme);
followColorScheme();

// The operations appear above the table of errors and push down the row that the address names.
function showRowOfAddress() {
  const row = document.getElementById(location.hash.slice(1));
  if (row !== null) {
    requestAnimationFrame(() => row.scrollIntoView({ block: "center" }));
  }
}

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // the default sends the document's address to another host
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  onComplete: showRowOfAddress,
});
