package topology

// grantKinds are the rights that differ from those which an object has when it is made: what was granted, and what was
// revoked. An owner is not named, so that another owner is one difference and not many.
var grantKinds = []objectKind{
	{
		kind: kindPrivilege, name: "e.privilege || ' of ' || e.grantee || ' on ' || o.label", part: "o.part",
		from:    "FROM granted o CROSS JOIN LATERAL (" + newRights("o.acl", "acldefault(o.type, o.owner)") + ") e",
		aspects: []aspect{{sql: "e.grantable", values: yesNo("with grant option", "without grant option")}},
	},
	{
		kind: kindRevocation, name: "'of ' || e.privilege || ' from ' || e.grantee || ' on ' || o.label", part: "o.part",
		from: "FROM granted o CROSS JOIN LATERAL (" + newRights("acldefault(o.type, o.owner)", "o.acl") + ") e",
		// The grant option of an owner goes with the right itself.
		aspects: []aspect{{sql: "''"}},
	},
}

// fingerprintGranted finds the objects whose rights were ever changed.
const fingerprintGranted = `, granted AS MATERIALIZED (
	SELECT r.label, r.name AS part, r.relacl AS acl, r.relowner AS owner, CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS type
	FROM rels r WHERE r.relacl IS NOT NULL
	UNION ALL
	SELECT 'column ' || quote_ident(a.attname) || ' of ' || r.name, r.name, a.attacl, r.relowner, 'c'
	FROM rels r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE a.attacl IS NOT NULL
	UNION ALL
	SELECT 'schema ' || n.name, n.name, n.nspacl, n.nspowner, 'n' FROM spaces n WHERE n.nspacl IS NOT NULL
	UNION ALL
	SELECT 'function ' || p.name, p.name, p.proacl, p.proowner, 'f' FROM functions p WHERE p.proacl IS NOT NULL
	UNION ALL
	SELECT 'type ' || t.name, t.name, t.typacl, t.typowner, 'T' FROM types t WHERE t.typacl IS NOT NULL
	UNION ALL
	SELECT 'new ' || CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' ELSE 'schemas' END
	       || ' of ' || pg_get_userbyid(d.defaclrole) || coalesce(' in schema ' || quote_ident(n.nspname), ''), '', d.defaclacl, d.defaclrole,
	       CASE WHEN d.defaclnamespace <> 0 THEN 'c' WHEN d.defaclobjtype = 'S' THEN 's' ELSE d.defaclobjtype END
	FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
)`

// newRights gives the rights of one access control list that another does not have. Who granted them is not looked at.
func newRights(acl, but string) string {
	return `SELECT x.privilege_type AS privilege, bool_or(x.is_grantable) AS grantable,
		CASE x.grantee WHEN 0 THEN 'PUBLIC' WHEN o.owner THEN 'its owner' ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS grantee
		FROM aclexplode(` + acl + `) x
		WHERE NOT EXISTS (SELECT FROM aclexplode(` + but + `) y WHERE y.grantee = x.grantee AND y.privilege_type = x.privilege_type AND y.is_grantable = x.is_grantable)
		GROUP BY x.privilege_type, x.grantee`
}
