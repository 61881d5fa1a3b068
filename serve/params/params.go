// Package params reads what clients ask of the shape route: query strings by the rules of form encoding with brackets,
// then the parameters in the order and with the texts of the protocol. It owns every text that a client sees about a
// parameter's form.
//
// It does not know whether a table or column exists or what a where clause means: whoever opens the shape does. It
// answers nothing, and keeps no state.
//
// The one idea: what is read here and called valid can be hashed and compared, because there is one spelling for it.
package params
