package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

// Argo CD gives a script a second, and these libraries alone: base, package, table, and of os the time and the date, by require("os").
func runScript(script string, object json.RawMessage) (json.RawMessage, error) {
	var content any
	if err := json.Unmarshal(object, &content); err != nil {
		return nil, err
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.PreloadModule(lua.OsLibName, loadOs)
	limited, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", luajson.DecodeValue(state, content))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	if value := state.Get(-1); value.Type() == lua.LTTable {
		return luajson.Encode(value)
	}
	return nil, fmt.Errorf("the script returns no table")
}

func loadOs(state *lua.LState) int {
	state.Push(state.SetFuncs(state.NewTable(), map[string]lua.LGFunction{
		"time": func(state *lua.LState) int {
			state.Push(lua.LNumber(time.Now().Unix()))
			return 1
		},
		"date": func(state *lua.LState) int {
			words := strings.NewReplacer("!", "", "%y", "06", "%m", "01", "%d", "02", "%H", "15", "%M", "04", "%S", "05", "%Y", "2006")
			state.Push(lua.LString(time.Now().UTC().Format(words.Replace(state.CheckString(1)))))
			return 1
		},
	}))
	return 1
}
