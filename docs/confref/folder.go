// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// folder is a package's sources, without its tests.
type folder struct {
	name  string
	files []*ast.File
}

func parseFolder(root, dir string) (*folder, error) {
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		return nil, fmt.Errorf("read the sources: %w", err)
	}
	f := &folder{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("read the sources: %w", err)
		}
		f.name = file.Name.Name
		f.files = append(f.files, file)
	}
	return f, nil
}

// specs calls do for each constant, variable and type.
func (f *folder) specs(do func(spec ast.Spec)) {
	for _, file := range f.files {
		for _, decl := range file.Decls {
			if general, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range general.Specs {
					do(spec)
				}
			}
		}
	}
}

// functions calls do for each function and method.
func (f *folder) functions(do func(*ast.FuncDecl)) {
	for _, file := range f.files {
		for _, decl := range file.Decls {
			if function, ok := decl.(*ast.FuncDecl); ok {
				do(function)
			}
		}
	}
}

// structType finds a struct by its name.
func (f *folder) structType(name string) (*ast.StructType, error) {
	var found *ast.StructType
	f.specs(func(spec ast.Spec) {
		if t, ok := spec.(*ast.TypeSpec); ok && t.Name.Name == name {
			found, _ = t.Type.(*ast.StructType)
		}
	})
	if found == nil {
		return nil, fmt.Errorf("package %s has no struct %s", f.name, name)
	}
	return found, nil
}

// constant finds the value of a constant, as the author of a configuration writes it: times in seconds.
func (f *folder) constant(name string) (string, error) {
	var value ast.Expr
	f.specs(func(spec ast.Spec) {
		if v, ok := spec.(*ast.ValueSpec); ok {
			for i, n := range v.Names {
				if n.Name == name && i < len(v.Values) {
					value = v.Values[i]
				}
			}
		}
	})
	if value == nil {
		return "", fmt.Errorf("package %s has no constant %s", f.name, name)
	}
	return literal(value)
}

func literal(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return strconv.Unquote(e.Value)
		}
		return e.Value, nil
	case *ast.Ident:
		return e.Name, nil // true, false
	case *ast.BinaryExpr:
		number, isNumber := e.X.(*ast.BasicLit)
		unit, isUnit := e.Y.(*ast.SelectorExpr)
		if isNumber && isUnit && e.Op == token.MUL {
			n, err := strconv.Atoi(number.Value)
			length, ok := map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}[unit.Sel.Name]
			if err == nil && ok {
				return strconv.Itoa(int((time.Duration(n) * length).Seconds())), nil
			}
		}
	}
	return "", fmt.Errorf("an expression of type %T is not understood: make it a literal", e)
}

// text is a comment in one line.
func text(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
