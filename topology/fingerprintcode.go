package topology

// codeKinds are functions, and what is made of them; and types.
var codeKinds = []objectKind{
	{
		kind: "type", name: "t.name", part: "t.name",
		from: "FROM types t LEFT JOIN pg_range r ON r.rngtypid = t.oid",
		aspects: []aspect{
			{sql: "t.typtype", values: map[string]string{
				"e": "an enum", "d": "a domain", "c": "a composite type", "r": "a range type", "b": "a base type", "p": "a shell type",
			}},
			{sql: "(SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)", word: "labels"},
			{sql: "CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END", word: "base type"},
			{sql: "CASE WHEN t.typtype = 'd' AND t.typcollation <> (SELECT b.typcollation FROM pg_type b WHERE b.oid = t.typbasetype) THEN t.typcollation::regcollation END", word: "collation"},
			{sql: "t.typnotnull", values: yesNo("NOT NULL", "nullable")},
			{sql: "pg_get_expr(t.typdefaultbin, 0)", word: "default"},
			{
				sql: `(SELECT string_agg(quote_ident(c.conname) || ' ' || pg_get_constraintdef(c.oid), ', ' ORDER BY c.conname)
					FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c')`, word: "constraints",
			},
			{
				sql: `CASE WHEN t.typtype = 'c' THEN (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
					|| CASE WHEN a.attcollation <> y.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END, ', ' ORDER BY a.attnum)
					FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END`,
				word: "attributes",
			},
			{sql: "format_type(r.rngsubtype, NULL)", word: "subtype"},
			{sql: "CASE WHEN t.typtype = 'b' THEN concat(t.typinput::regprocedure, ' ', t.typlen, ' ', t.typalign, ' ', t.typstorage) END", word: "representation"},
			ownerOf("t.typowner"),
		},
	},
	{
		kind: "function", name: "p.name", part: "p.name",
		from: "FROM functions p JOIN pg_language l ON l.oid = p.prolang LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid",
		aspects: []aspect{
			{sql: "p.prokind", values: map[string]string{"f": "a function", "p": "a procedure", "a": "an aggregate", "w": "a window function"}},
			{sql: "pg_get_function_arguments(p.oid)", word: "arguments"},
			{sql: "pg_get_function_result(p.oid)", word: "result"},
			{sql: "l.lanname", word: "language"},
			{sql: "p.provolatile", values: map[string]string{"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}},
			{sql: "p.proisstrict", values: yesNo("STRICT", "called on NULL")},
			{sql: "p.prosecdef", values: yesNo("SECURITY DEFINER", "SECURITY INVOKER")},
			{sql: "p.proleakproof", values: yesNo("LEAKPROOF", "not leakproof")},
			{sql: "p.proparallel", word: "parallel safety", values: map[string]string{"s": "SAFE", "r": "RESTRICTED", "u": "UNSAFE"}},
			{sql: "p.procost", word: "cost"},
			{sql: "p.prorows", word: "number of rows"},
			{sql: "(SELECT string_agg(c, ', ' ORDER BY c) FROM unnest(p.proconfig) c)", word: "settings"},
			{sql: "md5(concat(p.prosrc, chr(31), p.probin, chr(31), pg_get_function_sqlbody(p.oid)))", word: "body", opaque: true},
			{
				sql: `CASE WHEN a.aggfnoid IS NOT NULL THEN md5(concat(a.aggkind, a.aggnumdirectargs, a.aggtransfn::regprocedure, a.aggfinalfn::regprocedure,
					a.aggcombinefn::regprocedure, a.aggserialfn::regprocedure, a.aggdeserialfn::regprocedure, a.aggmtransfn::regprocedure,
					a.aggminvtransfn::regprocedure, a.aggmfinalfn::regprocedure, a.aggfinalextra, a.aggmfinalextra, a.aggfinalmodify,
					a.aggmfinalmodify, a.aggsortop::regoperator, format_type(a.aggtranstype, NULL), a.aggtransspace,
					format_type(a.aggmtranstype, NULL), a.aggmtransspace, chr(31), a.agginitval, chr(31), a.aggminitval)) END`,
				word: "aggregation", opaque: true,
			},
			ownerOf("p.proowner"),
		},
	},
	{
		kind: "operator", name: "o.oid::regoperator::text", part: "o.oid::regoperator::text",
		from: "FROM pg_operator o JOIN spaces n ON n.oid = o.oprnamespace WHERE o.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_operator'::regclass)",
		aspects: []aspect{
			{sql: "o.oprcode::regprocedure", word: "function"},
			{sql: "o.oprcom::regoperator", word: "commutator"},
			{sql: "o.oprnegate::regoperator", word: "negator"},
			{sql: "o.oprcanhash", values: yesNo("HASHES", "without HASHES")},
			{sql: "o.oprcanmerge", values: yesNo("MERGES", "without MERGES")},
		},
	},
	{
		// The numbers below 16384 are those of the casts that PostgreSQL comes with.
		kind: "cast", name: "'from ' || format_type(c.castsource, NULL) || ' to ' || format_type(c.casttarget, NULL)", part: "''",
		from: "FROM pg_cast c WHERE c.oid >= 16384 AND c.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_cast'::regclass)",
		aspects: []aspect{
			{sql: "c.castfunc::regprocedure", word: "function"},
			{sql: "c.castcontext", values: map[string]string{"e": "explicit only", "a": "used in assignments", "i": "implicit"}},
			{sql: "c.castmethod", word: "method", values: map[string]string{"f": "a function", "i": "input and output", "b": "none"}},
		},
	},
	{
		// Versions of PostgreSQL call the column of the locale differently.
		kind: "collation", name: "n.name || '.' || quote_ident(c.collname)", part: "''",
		from: "FROM pg_collation c JOIN spaces n ON n.oid = c.collnamespace CROSS JOIN LATERAL to_jsonb(c) j WHERE c.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_collation'::regclass)",
		aspects: []aspect{
			{sql: "c.collprovider", word: "provider", values: map[string]string{"c": "libc", "i": "icu", "b": "builtin"}},
			{sql: "coalesce(j->>'colllocale', j->>'colliculocale', c.collcollate)", word: "locale"},
			{sql: "c.collctype", word: "ctype"},
			{sql: "j->>'collicurules'", word: "rules"},
			{sql: "c.collisdeterministic", values: yesNo("deterministic", "nondeterministic")},
			ownerOf("c.collowner"),
		},
	},
	{
		kind: "event trigger", name: "quote_ident(e.evtname)", part: "''",
		from: "FROM pg_event_trigger e WHERE e.evtfoid NOT IN (SELECT oid FROM ours) AND e.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_event_trigger'::regclass)",
		aspects: []aspect{
			{sql: "e.evtevent", word: "event"},
			{sql: "e.evtfoid::regprocedure", word: "function"},
			{sql: "e.evtenabled", values: enabledWords},
			{sql: "(SELECT string_agg(g, ', ' ORDER BY g) FROM unnest(e.evttags) g)", word: "tags"},
			ownerOf("e.evtowner"),
		},
	},
}
