"""How GitOps tools judge objects: Argo CD by the Lua in deploy/argocd, Flux by kstatus; and the states to judge."""
