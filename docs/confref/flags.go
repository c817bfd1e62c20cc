// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// commandFlag is a flag, and the commands that have it.
type commandFlag struct {
	key

	Commands []string
}

// flags are those of a program made with cobra, by its sources: the package of a program can not be imported. A function whose first
// literal is of cobra.Command makes that command; its flags are declared in it, or by methods of the options that it has.
func (f *folder) flags(others ...*folder) ([]commandFlag, error) {
	methods := map[string]*ast.FuncDecl{} // by "Type.method"
	var makers []*ast.FuncDecl
	f.functions(func(d *ast.FuncDecl) {
		switch {
		case d.Recv != nil:
			methods[typeName(d.Recv.List[0].Type)+"."+d.Name.Name] = d
		case commandName(d) != "":
			makers = append(makers, d)
		}
	})
	c := &flagReader{folder: f, others: others, methods: methods}
	for _, d := range makers {
		if err := c.read(d, commandName(d)); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

type flagReader struct {
	*folder

	others  []*folder
	methods map[string]*ast.FuncDecl
	found   []commandFlag
}

// typeName is the name of a type, or of that which a pointer points to.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.CompositeLit:
		return typeName(e.Type)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// commandName is what the command is called that a function makes, "" if it makes none.
func commandName(d *ast.FuncDecl) string {
	var name string
	ast.Inspect(d, func(n ast.Node) bool {
		literalOf, ok := n.(*ast.CompositeLit)
		if !ok || name != "" {
			return true
		}
		if s, ok := literalOf.Type.(*ast.SelectorExpr); !ok || s.Sel.Name != "Command" {
			return true
		}
		for _, e := range literalOf.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && typeName(kv.Key) == "Use" {
				use, _ := literal(kv.Value) // one that is no literal names no command
				name, _, _ = strings.Cut(use, " ")
			}
		}
		return true
	})
	return name
}

// read adds what a function declares for a command, and what the methods that it calls do.
func (c *flagReader) read(d *ast.FuncDecl, command string) error {
	variables := map[string]string{} // types, by name
	var err error
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if i < len(n.Rhs) && typeName(left) != "" {
					variables[typeName(left)] = typeName(n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				variables[name.Name] = typeName(n.Type)
			}
		case *ast.CallExpr:
			if err == nil {
				err = c.call(n, variables, command)
			}
		}
		return true
	})
	return err
}

func (c *flagReader) call(call *ast.CallExpr, variables map[string]string, command string) error {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if t, ok := map[string]string{"StringVar": "string", "BoolVar": "true or false", "IntVar": "number", "TextVar": "string"}[s.Sel.Name]; ok {
		return c.declare(call.Args, t, command)
	}
	receiver := ""
	switch x := s.X.(type) {
	case *ast.Ident:
		receiver = variables[x.Name]
	case *ast.SelectorExpr:
		receiver = x.Sel.Name // embedded: a field of its type's name
	}
	if method, ok := c.methods[receiver+"."+s.Sel.Name]; ok && takesFlags(method) {
		return c.read(method, command)
	}
	return nil
}

func takesFlags(d *ast.FuncDecl) bool {
	return slices.ContainsFunc(d.Type.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		s, ok := star.X.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "FlagSet"
	})
}

// declare reads the arguments of pflag's functions: the variable, the name, the default and what it means.
func (c *flagReader) declare(args []ast.Expr, flagType, command string) error {
	name, err := literal(args[1])
	if err != nil {
		return fmt.Errorf("the name of a flag: %w", err)
	}
	k := key{Name: "--" + name, Type: flagType}
	if k.Meaning, err = literal(args[3]); err != nil {
		return fmt.Errorf("what flag %s means: %w", name, err)
	}
	if k.Default, err = c.defaultOf(args[2]); err != nil {
		return fmt.Errorf("the default of flag %s: %w", name, err)
	}
	if i := slices.IndexFunc(c.found, func(f commandFlag) bool { return f.key == k }); i >= 0 {
		c.found[i].Commands = append(c.found[i].Commands, command)
		return nil
	}
	c.found = append(c.found, commandFlag{key: k, Commands: []string{command}})
	return nil
}

// defaultOf words the default of a flag.
func (c *flagReader) defaultOf(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		of := typeName(e.X)
		if level, ok := strings.CutPrefix(e.Sel.Name, "Level"); ok && of == "slog" {
			return strings.ToLower(level), nil
		}
		for _, other := range c.others {
			if other.name == of {
				return other.constant(e.Sel.Name)
			}
		}
	case *ast.CallExpr:
		if s, ok := e.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Getenv" {
			variable, err := literal(e.Args[0])
			return "$" + variable, err
		}
		var doc string
		c.functions(func(d *ast.FuncDecl) {
			if d.Name.Name == typeName(e.Fun) {
				doc = text(d.Doc)
			}
		})
		if _, words, ok := strings.Cut(doc, " is "); ok {
			words, _, _ = strings.Cut(words, ".")
			return words, nil
		}
	default:
		return literal(e)
	}
	return "", fmt.Errorf("an expression of type %T is not understood", e)
}
