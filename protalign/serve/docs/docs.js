// The description of the API, drawn by Swagger UI; nothing is asked of other servers.
window.addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null, deepLinking: true });
});
